"""The two tools that roles install on nodes, run on file trees that look like a machine's /sys and /proc."""

import json
from pathlib import Path

import pytest

from kanctl.cli.playbook_code import load_playbook_code

acs = load_playbook_code("roles/gpudirect/files/kanctl_acs.py")
tuning = load_playbook_code("roles/node_tuning/files/kanctl_node_tuning.py")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def config_space(control: int | None) -> bytes:
    """4096 bytes with an AER capability at 0x100 and, unless None, ACS at 0x148 with this control value."""
    space = bytearray(4096)
    following = 0 if control is None else 0x148
    space[0x100:0x104] = (0x0001 | 1 << 16 | following << 20).to_bytes(4, "little")
    if control is not None:
        space[0x148:0x14C] = (0x000D | 1 << 16).to_bytes(4, "little")
        space[0x14E:0x150] = control.to_bytes(2, "little")
    return bytes(space)


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    """Root port 00:01.0 (redirects) over switch port 01:00.0 (no ACS) over a GPU; a disk sits under 00:02.0."""
    devices = {
        "pci0000:00/0000:00:01.0": ("0x8086", "0x060400", config_space(0x001D)),
        "pci0000:00/0000:00:01.0/0000:01:00.0": ("0x1000", "0x060400", config_space(None)),
        "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0": ("0x10de", "0x030200", bytes(64)),
        "pci0000:00/0000:00:02.0": ("0x8086", "0x060400", config_space(0x001D)),
        "pci0000:00/0000:00:02.0/0000:03:00.0": ("0x144d", "0x010802", bytes(64)),
    }
    folder = tmp_path / "sys/bus/pci/devices"
    folder.mkdir(parents=True)
    for name, (vendor, device_class, config) in devices.items():
        device = tmp_path / "sys/devices" / name
        write(device / "vendor", vendor)
        write(device / "class", device_class)
        (device / "config").write_bytes(config)
        (folder / device.name).symlink_to(device)
    return tmp_path


def control(root: Path, address: str) -> int:
    config = (root / "sys/bus/pci/devices" / address / "config").read_bytes()
    return int.from_bytes(config[0x14E:0x150], "little")


def test_only_bridges_above_a_gpu_lose_redirection_and_source_validation_stays(bus, capsys):
    assert acs.main(["check", "--root", str(bus)]) == acs.EXIT_DIFFERS
    assert control(bus, "0000:00:01.0") == 0x001D
    assert acs.main(["apply", "--root", str(bus)]) == 0
    assert "0000:00:01.0: ACS Control 0x001d -> 0x0001" in capsys.readouterr().out
    assert control(bus, "0000:00:01.0") == 0x0001
    assert control(bus, "0000:00:02.0") == 0x001D


def test_a_second_apply_finds_nothing_to_do(bus, capsys):
    acs.main(["apply", "--root", str(bus)])
    capsys.readouterr()
    assert acs.main(["apply", "--root", str(bus)]) == 0
    assert acs.main(["check", "--root", str(bus)]) == 0
    assert capsys.readouterr().out == ""


def test_a_host_that_gives_devices_to_vfio_is_refused_and_left_as_it_is(bus, capsys):
    (bus / "sys/bus/pci/drivers/vfio-pci/0000:02:00.0").mkdir(parents=True)
    assert acs.main(["apply", "--root", str(bus)]) == acs.EXIT_REFUSED
    assert "0000:02:00.0 on vfio-pci" in capsys.readouterr().err
    assert control(bus, "0000:00:01.0") == 0x001D


@pytest.mark.parametrize("config", [b"", bytes(64), bytes(4096), b"\xff" * 4096])
def test_a_device_without_extended_capabilities_has_no_acs(config):
    assert acs.acs_control_offset(config) is None


def test_a_capability_list_that_loops_ends():
    space = bytearray(config_space(None))
    space[0x100:0x104] = (0x0001 | 0x100 << 20).to_bytes(4, "little")
    assert acs.acs_control_offset(bytes(space)) is None


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two NUMA nodes of four CPUs; NIC eth0 on node 1 with three queues; powersave; THP always."""
    cpu = tmp_path / "sys/devices/system"
    for policy in ("policy0", "policy4"):
        write(cpu / "cpu/cpufreq" / policy / "scaling_available_governors", "performance powersave")
        write(cpu / "cpu/cpufreq" / policy / "scaling_governor", "powersave")
    write(cpu / "cpu/online", "0-7")
    write(cpu / "node/node1/cpulist", "4-7")
    write(tmp_path / "sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
    device = tmp_path / "sys/class/net/eth0/device"
    write(device / "numa_node", "1")
    for irq in (30, 31, 32):
        write(device / "msi_irqs" / str(irq), "msix")
        write(tmp_path / f"proc/irq/{irq}/smp_affinity_list", "0-7")
    config = {
        "cpu_governor": "performance",
        "irq_interfaces": ["eth0", "absent0"],
        "isolated_cpus": "6-7",
        "transparent_hugepage": {"enabled": "madvise", "defrag": "madvise"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def run(verb: str, root: Path) -> int:
    return tuning.main([verb, "--root", str(root), "--config", str(root / "config.json")])


def test_check_tells_every_difference_and_changes_nothing(machine, capsys):
    assert run("check", machine) == tuning.EXIT_DIFFERS
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert (machine / "proc/irq/30/smp_affinity_list").read_text() == "0-7\n"


def test_apply_binds_queues_to_the_nics_own_cores_without_the_isolated_ones(machine, capsys):
    assert run("apply", machine) == 0
    assert [(machine / f"proc/irq/{irq}/smp_affinity_list").read_text() for irq in (30, 31, 32)] == ["4", "5", "4"]
    assert (machine / "sys/devices/system/cpu/cpufreq/policy4/scaling_governor").read_text() == "performance"
    assert "policy0/scaling_governor: powersave -> performance" in capsys.readouterr().out


def test_a_machine_as_wanted_gets_no_write_and_no_line(machine, capsys):
    run("apply", machine)
    # A real kernel answers with the list again, the chosen word in brackets.
    write(machine / "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    capsys.readouterr()
    assert run("apply", machine) == 0
    assert run("check", machine) == 0
    assert capsys.readouterr().out == ""


def test_an_interrupt_that_the_kernel_keeps_is_named_and_is_no_failure(machine, capsys):
    kept = machine / "proc/irq/30/smp_affinity_list"
    kept.unlink()
    # A folder in its place refuses to be written, as a managed interrupt does, also for root.
    kept.mkdir()
    assert run("apply", machine) == 0
    assert "the kernel refused" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "cpus"), [("", []), ("3", [3]), ("0-2,8", [0, 1, 2, 8]), ("0-1,4-5\n", [0, 1, 4, 5])])
def test_cpu_lists_are_read_as_the_kernel_writes_them(text, cpus):
    assert tuning.parse_cpulist(text) == cpus
