"""The node's side of kernel trials: every event in every phase, power cuts at any write, and what GRUB is told."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROLE = Path(__file__).parents[2] / "playbooks" / "roles" / "kernel_install" / "files"


@pytest.fixture(scope="module")
def node():
    """The program's modules, imported as the node does."""
    sys.path.insert(0, str(ROLE))
    try:
        yield {
            name: importlib.import_module(f"kanctl_kernel.{name}") for name in ("machine", "loaders", "store", "gate")
        }
    finally:
        sys.path.remove(str(ROLE))


OLD, NEW = "6.1.0-41-amd64", "6.12.117-kanctl-lab-1a2b3c"


@pytest.fixture
def world(node):
    """Boots and trials to play with."""
    machine = node["machine"]

    class World:
        trial = machine.Trial(
            id="5f", kind="install", release=NEW, armed_boot_id="boot-1", started_unix_s=100, timeout_s=900
        )
        before = machine.Boot(release=OLD, boot_id="boot-1", arguments=("quiet",), unix_s=100)
        on_trial = machine.Boot(release=NEW, boot_id="boot-2", arguments=("panic=10", "kanctl.trial=5f"), unix_s=200)
        back = machine.Boot(release=OLD, boot_id="boot-3", arguments=("quiet",), unix_s=300)

        def armed(self):
            state, actions = machine.begin(machine.State(), self.trial, self.before)
            assert actions == (machine.ARM,)
            return machine.armed(state)

        def booted(self):
            return machine.on_boot(self.armed(), self.on_trial)[0]

    return World()


def test_a_good_kernel_is_tried_judged_and_kept(node, world):
    machine = node["machine"]
    state = world.armed()
    assert state.last_good == OLD
    state, actions = machine.on_boot(state, world.on_trial)
    assert (state.trial.phase, actions) == ("booted", (machine.WAIT,))
    assert machine.on_gate(state, world.on_trial, []) == (state, ())
    state, actions = machine.promote(state)
    assert (state.trial.phase, actions) == ("promoting", (machine.KEEP,))
    state = machine.promoted(state, world.on_trial)
    assert (state.last_good, state.trial) == (NEW, None)
    assert state.history[-1].good


def test_a_kernel_that_panics_or_hangs_is_noticed_by_the_old_one(node, world):
    machine = node["machine"]
    state, actions = machine.on_boot(world.armed(), world.back)
    assert actions == (machine.DISARM,)
    assert state.last_good == OLD
    assert "a panic, a hang or a power cut" in state.history[-1].reason


def test_a_kernel_that_dies_after_it_booted_is_noticed(node, world):
    state, _ = node["machine"].on_boot(world.booted(), world.back)
    assert state.trial is None
    assert "ended before it was promoted" in state.history[-1].reason


def test_a_power_cut_while_the_trial_is_prepared_ends_it(node, world):
    machine = node["machine"]
    preparing, _ = machine.begin(machine.State(), world.trial, world.before)
    state, actions = machine.on_boot(preparing, world.back)
    assert actions == (machine.DISARM,)
    assert "being prepared" in state.history[-1].reason


def test_a_power_cut_after_the_loader_was_told_but_before_that_was_noted_is_a_trial(node, world):
    machine = node["machine"]
    preparing, _ = machine.begin(machine.State(), world.trial, world.before)
    state, actions = machine.on_boot(preparing, world.on_trial)
    assert (state.trial.phase, actions) == ("booted", (machine.WAIT,))


def test_a_power_cut_during_the_promotion_is_finished_by_the_next_boot(node, world):
    machine = node["machine"]
    promoting, _ = machine.promote(world.booted())
    for boot in (world.back, replace(world.on_trial, boot_id="boot-9")):
        state, actions = machine.on_boot(promoting, boot)
        assert actions == (machine.KEEP,)
        assert state.trial.phase == "promoting"


def test_a_kernel_that_nobody_promotes_goes_back(node, world):
    machine = node["machine"]
    state, actions = machine.on_deadline(world.booted(), world.on_trial)
    assert actions == (machine.DISARM, machine.REBOOT)
    assert state.history[-1].reason == "not promoted within 900 s"


def test_a_deadline_after_the_promotion_changes_nothing(node, world):
    machine = node["machine"]
    done = machine.promoted(machine.promote(world.booted())[0], world.on_trial)
    assert machine.on_deadline(done, world.on_trial) == (done, ())
    assert machine.on_deadline(world.armed(), world.before) == (world.armed(), ())


def test_a_kernel_that_fails_its_gate_goes_back_with_the_reason(node, world):
    machine = node["machine"]
    state, actions = machine.on_gate(world.booted(), world.on_trial, ["no GPU driver", "sshd failed"])
    assert actions == (machine.DISARM, machine.REBOOT)
    assert state.history[-1].reason == "gate: no GPU driver; sshd failed"
    assert state.last_good == OLD


def test_the_same_boot_asked_twice_changes_nothing(node, world):
    machine = node["machine"]
    assert machine.on_boot(world.armed(), world.before) == (world.armed(), ())
    assert machine.on_boot(world.booted(), world.on_trial) == (world.booted(), ())


def test_two_trials_at_once_are_refused(node, world):
    with pytest.raises(ValueError, match="on trial already"):
        node["machine"].begin(world.armed(), world.trial, world.before)


def test_nothing_is_promoted_that_does_not_run(node, world):
    for state in (node["machine"].State(), world.armed()):
        with pytest.raises(ValueError, match="nothing that runs is on trial"):
            node["machine"].promote(state)


def test_of_our_kernels_the_newest_the_running_and_the_last_good_stay(node):
    machine = node["machine"]
    ours = ["k1", "k2", "k3", "k4", "k5"]
    installed = [OLD, *ours]
    state = machine.State(last_good="k1")
    assert machine.prunable(installed, ours, state, "k2", 2) == ["k3"]
    assert machine.prunable(installed, ours, machine.State(last_good=OLD), OLD, 0) == ours
    assert OLD not in machine.prunable(installed, ours, machine.State(), "k5", 0)


# The state on disk.


def test_a_state_survives_the_disk(node, world, tmp_path):
    store = node["store"]
    for state in (world.armed(), world.booted(), node["machine"].fail(world.booted(), "why", world.back)):
        store.save(tmp_path, state)
        assert store.load(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_power_cut_while_writing_leaves_the_old_state(node, world, tmp_path):
    store = node["store"]
    store.save(tmp_path, world.armed())
    (tmp_path / "state.json.part").write_text('{"last_good": "half')
    assert store.load(tmp_path) == world.armed()


@pytest.mark.parametrize("text", ["", "{", '{"last_good": ""}', '{"last_good": "", "trial": {"x": 1}, "history": []}'])
def test_a_damaged_state_is_said_so(node, tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(node["store"].StateDamaged, match=r"state\.json"):
        node["store"].load(tmp_path)


# Boot loaders.

MENU = f"""set default="${{saved_entry}}"
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-UUID' {{
\tlinux /boot/vmlinuz-{NEW} root=UUID=1 ro quiet
}}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-UUID' {{
\tmenuentry 'Debian, {NEW}' --class debian $menuentry_id_option 'gnulinux-{NEW}-advanced-UUID' {{
\t\tsearch --no-floppy --fs-uuid --set=root 1
\t\tlinux\t/boot/vmlinuz-{NEW} root=UUID=1 ro quiet preempt=none console=ttyS0 panic=0
\t\tinitrd\t/boot/initrd.img-{NEW}
\t}}
\tmenuentry 'Debian, {NEW} (recovery mode)' $menuentry_id_option 'gnulinux-{NEW}-recovery-UUID' {{
\t\tlinux\t/boot/vmlinuz-{NEW} root=UUID=1 ro single
\t}}
\tmenuentry 'Debian, {OLD}' --class debian $menuentry_id_option 'gnulinux-{OLD}-advanced-UUID' {{
\t\tlinux\t/boot/vmlinuz-{OLD} root=UUID=1 ro quiet
\t}}
}}
if [ -f ${{config_directory}}/kanctl-trial.cfg ]; then
fi
"""


def test_an_entry_is_found_with_its_submenu(node):
    entry_path = node["loaders"].entry_path
    assert entry_path(MENU, OLD) == f"gnulinux-advanced-UUID>gnulinux-{OLD}-advanced-UUID"
    with pytest.raises(node["loaders"].LoaderError, match=r"no entry for 6\.1"):
        entry_path(MENU, "6.1")


def test_the_trials_entry_is_the_kernels_own_with_the_guards(node):
    text = node["loaders"].trial_menu(MENU, NEW, ["preempt=full", "console=ttyS1", "panic=10", "kanctl.trial=5f"])
    assert text.startswith(f"menuentry 'On trial: {NEW}' --id kanctl-trial {{\n")
    assert "initrd\t/boot/initrd.img-" in text
    (linux,) = [line for line in text.splitlines() if "vmlinuz" in line]
    assert linux.split()[2:] == [
        "root=UUID=1", "ro", "quiet", "console=ttyS0", "preempt=full", "console=ttyS1", "panic=10", "kanctl.trial=5f",
    ]  # fmt: skip
    assert text.rstrip().endswith("}")


class Programs:
    """Takes the place of the node's programs: notes what was called, answers what it was told to."""

    def __init__(self, **answers):
        self.calls = []
        self.answers = answers

    def __call__(self, words):
        self.calls.append(" ".join(words))
        return self.answers.get(words[0].replace("-", "_"), "")


@pytest.fixture
def grub_root(tmp_path):
    (tmp_path / "boot/grub").mkdir(parents=True)
    (tmp_path / "boot/grub/grub.cfg").write_text(MENU)
    return tmp_path


def test_grub_keeps_the_old_kernel_and_starts_the_new_one_once(node, grub_root):
    programs = Programs(grub_editenv="saved_entry=x\nnext_entry=kanctl-trial\n")
    grub = node["loaders"].Grub(grub_root, programs)
    grub.arm(OLD, NEW, ["panic=10"])
    assert programs.calls == [
        f"grub-set-default gnulinux-advanced-UUID>gnulinux-{OLD}-advanced-UUID",
        "grub-reboot kanctl-trial",
        "sync",
    ]
    assert "panic=10" in (grub_root / "boot/grub/kanctl-trial.cfg").read_text()
    assert "GRUB_DEFAULT=saved" in (grub_root / "etc/default/grub.d/60-kanctl-kernel.cfg").read_text()
    grub.disarm()
    assert programs.calls[-1].endswith("unset next_entry")
    assert not (grub_root / "boot/grub/kanctl-trial.cfg").exists()


def test_a_menu_that_does_not_follow_the_saved_default_is_made_anew_first(node, grub_root):
    (grub_root / "boot/grub/grub.cfg").write_text(MENU.replace("saved_entry", "other"))
    programs = Programs()
    node["loaders"].Grub(grub_root, programs).keep(OLD)
    assert programs.calls[0] == "update-grub"


@pytest.mark.parametrize(("layers", "file_system", "count"), [("", "ext2", 0), ("lvm\n", "ext2", 1), ("", "btrfs", 1)])
def test_a_boot_folder_that_grub_cannot_write_is_refused(node, grub_root, layers, file_system, count):
    def answer(words):
        return layers if "abstraction" in words[1] else file_system

    assert len(node["loaders"].Grub(grub_root, answer).problems()) == count


def test_systemd_boot_copies_the_entry_with_the_guards(node, tmp_path):
    for release in (OLD, NEW):
        text = f"title x\nlinux /{release}/linux\noptions root=UUID=1 quiet\ninitrd /{release}/initrd\n"
        (tmp_path / f"machine-{release}.conf").write_text(text)
    programs = Programs()
    loader = node["loaders"].SystemdBoot(tmp_path, programs)
    loader.arm(OLD, NEW, ["panic=10"])
    assert "options root=UUID=1 quiet panic=10" in (tmp_path / "kanctl-trial.conf").read_text()
    assert programs.calls[:2] == [f"bootctl set-default machine-{OLD}.conf", "bootctl set-oneshot kanctl-trial.conf"]
    loader.keep(NEW)
    assert not (tmp_path / "kanctl-trial.conf").exists()


def test_the_loader_is_found_by_its_files_and_a_container_has_none(node, grub_root, tmp_path):
    find = node["loaders"].find_loader
    assert find(tmp_path, grub_root).name == "grub"
    (grub_root / "run/systemd").mkdir(parents=True)
    (grub_root / "run/systemd/container").write_text("systemd-nspawn")
    assert find(tmp_path, grub_root).name == "dry"
    with pytest.raises(node["loaders"].LoaderError, match="found neither"):
        find(tmp_path, tmp_path / "nothing")


# The gate.


@pytest.mark.parametrize(
    ("changes", "devices", "units", "config", "said"),
    [
        ({}, ("pci/0 nvme",), (), "abc", []),
        ({"release": OLD}, ("pci/0 nvme",), (), "abc", [f"wanted the kernel {NEW}, found {OLD}"]),
        ({}, ("pci/0 nvme",), (), "def", ["wanted a configuration with SHA-256 abc, found def"]),
        ({"arguments": ()}, ("pci/0 nvme",), (), "abc", ["wanted preempt=full on the command line"]),
        ({}, (), (), "abc", ["pci/0 had the driver nvme and has none"]),
        ({}, ("pci/0 vfio",), (), "abc", []),
        ({}, ("pci/0 nvme",), ("ssh.service",), "abc", ["the unit ssh.service failed"]),
        ({}, ("pci/0 nvme",), ("old.service",), "abc", []),
    ],
)
def test_the_gate_names_what_is_worse_than_before(node, world, changes, devices, units, config, said):
    trial = replace(
        world.trial, config_sha256="abc", arguments=("preempt=full",), devices=("pci/0 nvme",),
        failed_units=("old.service",),
    )  # fmt: skip
    boot = replace(world.on_trial, arguments=("preempt=full",))
    assert node["gate"].problems(trial, replace(boot, **changes), devices, units, config) == said


def test_a_driver_that_the_boot_needs_is_looked_for_in_initramfs_and_kernel(node):
    listing = "usr/lib/modules/x/kernel/drivers/nvme/host/nvme-core.ko.xz\nusr/bin/sh\n"
    builtin = "kernel/drivers/virtio/virtio_pci.ko\n"
    missing = node["gate"].missing_drivers(("nvme_core", "virtio_pci", "mlx5_core"), listing, builtin)
    assert missing == ["mlx5_core"]
    assert node["gate"].missing_drivers(("mlx5_core",), "kernel/drivers/net/mlx5_core.ko\n") == []


def test_devices_with_a_driver_are_listed(node, tmp_path):
    for name, driver in (("0000:01:00.0", "nvme"), ("0000:02:00.0", None)):
        folder = tmp_path / "pci/devices" / name
        folder.mkdir(parents=True)
        if driver:
            (folder / "driver").symlink_to(f"../../drivers/{driver}")
    assert node["gate"].read_devices(tmp_path) == ("pci/0000:01:00.0 nvme",)


def test_the_program_answers_in_json_and_with_its_codes(tmp_path):
    import subprocess

    def call(*words):
        done = subprocess.run(
            [sys.executable, "-m", "kanctl_kernel", "--state", str(tmp_path), *words],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROLE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        return done.returncode, json.loads(done.stdout or "{}")

    (tmp_path / "state.json").write_text("{")
    code, answer = call("status")
    assert code == 1
    assert "state.json" in answer["error"] or "GRUB" in answer["error"]


@pytest.mark.parametrize("script", ["hook", "init-top"])
def test_scripts_of_the_initramfs_are_plain_shell(script):
    import subprocess

    path = ROLE / script
    subprocess.run(["dash", "-n", str(path)], check=True)
    assert subprocess.run(["dash", str(path), "prereqs"], capture_output=True).returncode == 0


def test_the_watchdog_script_uses_no_program_that_a_small_initramfs_lacks():
    text = (ROLE / "init-top").read_text()
    words = {word for line in text.splitlines() if not line.startswith("#") for word in line.split()[:1]}
    assert not words & {"grep", "sed", "awk", "cut", "head", "basename"}
    assert "$(" not in text
