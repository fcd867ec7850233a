"""The promises of the lab's QEMU machines: real GRUB, a power switch, a watchdog, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kanctl.lab.errors import LabError
from kanctl.lab.machines import power
from kanctl.lab.model import STATE_ROOT
from kanctl.lab.state import LabPaths

# The first test also waits for the image (minutes, once) and for the first boot.
pytestmark = [pytest.mark.machine, pytest.mark.timeout(1800)]

SECOND_ENTRY = """\
#!/bin/sh
exec tail -n +3 $0
menuentry 'Second' --id second {
  search --no-floppy --label --set=root kanctl-lab
  linux /vmlinuz root=LABEL=kanctl-lab ro console=ttyS0,115200 kanctl.entry=second
  initrd /initrd.img
}
"""


def kanctl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kanctl.cli", "lab", *words], capture_output=True, text=True)


def test_a_machine_boots_its_own_kernel_by_its_own_grub(machine):
    assert machine.run("systemctl is-system-running") == "running"
    assert machine.run("hostname") == "node1"
    assert machine.run("cat /proc/cmdline").startswith(f"BOOT_IMAGE=/boot/vmlinuz-{machine.run('uname -r')} root=UUID=")
    assert "Booting `Debian GNU/Linux'" in machine.serial_log()
    assert machine.run("test -c /dev/watchdog0 && cat /sys/class/watchdog/watchdog0/identity").startswith("i6300ESB")


def test_commands_and_ansible_take_a_machine_like_any_node(machine):
    answer = kanctl("ssh", "--name", machine.lab, "node1", "sh", "-c", "exit 7")
    assert answer.returncode == 7, answer.stderr
    assert kanctl("status", "--name", machine.lab, "--json").stdout.count('"state": "running"') == 1
    ansible = Path(sys.executable).with_name("ansible")
    words = [str(ansible), "-i", str(machine.paths.inventory), "nodes", "-m", "ansible.builtin.ping", "-o"]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/")
    assert done.stdout.count("SUCCESS") == 1, done.stdout + done.stderr


def test_an_entry_started_once_gives_way_to_the_default_at_the_next_boot(machine):
    machine.run(f"cat > /etc/grub.d/42_second <<'END'\n{SECOND_ENTRY}END\nchmod 755 /etc/grub.d/42_second")
    machine.run("update-grub && grub-reboot second")
    assert "next_entry=second" in machine.run("grub-editenv list")
    machine.reboot()
    assert machine.run("cat /proc/cmdline").endswith("kanctl.entry=second")
    assert "second" not in machine.run("grub-editenv list")
    machine.reboot()
    assert "kanctl.entry" not in machine.run("cat /proc/cmdline")


def test_a_power_cut_keeps_what_was_synced_and_the_machine_comes_back(machine):
    machine.run("echo kept > /root/kept && sync")
    before = machine.boot_id()
    machine.power_cut()
    assert [node.state for node in machine.status().nodes] == ["stopped"]
    assert kanctl("status", "--name", machine.lab).returncode == 3
    assert kanctl("ssh", "--name", machine.lab, "node1", "true").returncode == 4
    with pytest.raises(LabError, match="its QEMU ended"):
        machine.boot_id()
    machine.power_on()
    with pytest.raises(LabError, match=r"no SSH within 2 s; its serial line said last") as caught:
        machine.wait_for_boot_after(before, timeout_s=2)
    assert caught.value.next_step.endswith("/nodes/node1/serial.log")
    machine.wait_for_boot_after(before)
    assert machine.run("cat /root/kept") == "kept"


def test_the_watchdog_resets_a_machine_whose_init_hangs(machine):
    before = machine.boot_id()
    # systemd answers a crash of its own by freezing; without it nobody feeds the watchdog.
    machine.run("kill -SEGV 1")
    machine.wait_for_boot_after(before)
    # The kernel says this when the process that fed the watchdog has let go of it without stopping it.
    assert "watchdog did not stop!" in machine.serial_log()
    assert machine.run("systemctl is-system-running --wait") == "running"


def test_down_leaves_nothing_of_an_up_that_was_killed(machine_host, booted_machine):
    name = f"k{os.getpid() % 1_000_000}"
    paths = LabPaths(name=name, state_root=STATE_ROOT)
    up = subprocess.Popen(
        [sys.executable, "-m", "kanctl.cli", "lab", "up", "--machines", "--name", name, "--nodes", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not power.find_pids(paths):
            assert time.monotonic() < deadline, "no QEMU was started"
            time.sleep(0.5)
        up.send_signal(signal.SIGKILL)
        up.wait()
        assert "starting" in kanctl("status", "--name", name).stdout
        (paths.folder / "machines.json").write_text('{"name": ')
    finally:
        up.kill()
        assert kanctl("down", "--name", name).returncode == 0
    assert power.find_pids(paths) == []
    assert not paths.folder.exists()
    assert booted_machine.status().is_running
