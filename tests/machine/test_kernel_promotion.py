"""Kernels on trial on a real boot loader: a good one is kept; one that panics, hangs or fails its gate goes back alone.

The kernel is a bundle of the profile `lab`: $KANCTL_TEST_KERNEL_BUNDLE, else the newest in the user's data folder, else
built here (a quarter of an hour, once). It is installed once; every fault starts from the state saved after that.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kanctl.cli.kernel.place import work_dir

pytestmark = [pytest.mark.machine, pytest.mark.timeout(3600)]
INSTALLED = "installed"
# Some arguments of a profile that is not the one the inventory declares.
INFERENCE = {"preempt=full", "iommu=pt", "init_on_alloc=0", "numa_balancing=disable", "skew_tick=1"}
# How long a machine may take to give up on a kernel and come back: two boots and the watchdog's 120 s.
RETURN_TIMEOUT_S = 1200


def kanctl(machine, *words, timeout_s=3000):
    command = [sys.executable, "-m", "kanctl.cli", "kernel", *words, "--inventory", str(machine.paths.inventory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture(scope="session")
def bundle():
    """A bundle of the profile lab."""
    if "KANCTL_TEST_KERNEL_BUNDLE" in os.environ:
        return Path(os.environ["KANCTL_TEST_KERNEL_BUNDLE"])

    def newest():
        found = work_dir("lab", "x").parent.glob("lab-*/6.*/manifest.json")
        return max((path.parent for path in found), key=lambda path: path.stat().st_mtime, default=None)

    if newest() is None:
        command = [sys.executable, "-m", "kanctl.cli", "kernel", "build", "--profile", "lab", "--no-sbom"]
        subprocess.run(command, check=True, timeout=3500)
    return newest()


def release_of(bundle):
    return json.loads((bundle / "manifest.json").read_text())["release"]


@pytest.fixture(scope="session")
def installed_machine(booted_machine, bundle):
    """The machine with the kernel tried, promoted and running, and that state kept."""
    # The machine's board has an SMBus that the small kernel has no driver for; on a node the fleet file would bring it.
    variables = booted_machine.paths.inventory.parent / "group_vars"
    variables.mkdir(exist_ok=True)
    (variables / "nodes.yml").write_text("kernel_install_may_lose: [piix4_smbus]\n")
    done = kanctl(booted_machine, "install", str(bundle), "--yes")
    assert done.returncode == 0, done.stderr
    booted_machine.save(INSTALLED)
    return booted_machine, done


@pytest.fixture
def machine(installed_machine):
    """The machine as it was after the promotion."""
    machine, _ = installed_machine
    machine.load(INSTALLED)
    return machine


def state(machine):
    return json.loads(machine.run("kanctl-kernel status"))


def begin(machine, arguments, timeout_s=900, release=None):
    """Put the running kernel on trial once more, with further arguments, and restart into it; gives the boot before."""
    trial = {"kind": "tune", "release": release or machine.run("uname -r"), "arguments": arguments}
    trial["timeout_s"] = timeout_s
    machine.run(f"kanctl-kernel begin --trial '{json.dumps(trial)}'")
    before = machine.boot_id()
    machine.run("systemctl reboot --no-block")
    return before


def wait_until_back(machine, before):
    """Wait until the machine runs without a trial; gives its last verdict."""
    deadline = time.monotonic() + RETURN_TIMEOUT_S
    while time.monotonic() < deadline:
        machine.wait_for_boot_after(before, timeout_s=RETURN_TIMEOUT_S)
        now = state(machine)
        if now["trial"] is None:
            return now["history"][-1]
        time.sleep(5)
    raise AssertionError(f"still on trial: {state(machine)}")


def test_a_good_kernel_is_promoted_and_stays(installed_machine, bundle):
    machine, done = installed_machine
    assert "is the default from now on" in done.stderr
    assert machine.run("uname -r") == release_of(bundle)
    now = state(machine)
    assert (now["last_good"], now["trial"]) == (release_of(bundle), None)
    assert now["history"][-1]["good"]
    assert release_of(bundle) in machine.run("grub-editenv list")
    machine.reboot()
    assert machine.run("uname -r") == release_of(bundle)
    assert "kanctl.trial" not in machine.run("cat /proc/cmdline")


def test_a_second_run_changes_and_restarts_nothing(machine, bundle):
    before = machine.boot_id()
    done = kanctl(machine, "install", str(bundle), "--yes")
    assert done.returncode == 0, done.stderr
    assert "nothing to try" in done.stderr
    assert machine.boot_id() == before


def test_a_panic_goes_back_unattended(machine):
    before = begin(machine, ["init=/bin/false"])
    verdict = wait_until_back(machine, before)
    assert not verdict["good"]
    assert "a panic, a hang or a power cut" in verdict["reason"]
    assert "Attempted to kill init" in machine.serial_log()
    done = kanctl(machine, "promote", "--check")
    assert done.returncode == 1
    assert "went back to their last good kernel" in done.stderr


def test_a_hang_before_ssh_goes_back_by_the_watchdog(machine):
    # PID 1 waits for a terminal that nobody opens: nothing panics, and systemd never feeds the watchdog.
    before = begin(machine, ["init=/usr/bin/cat"])
    verdict = wait_until_back(machine, before)
    assert not verdict["good"]
    assert "a panic, a hang or a power cut" in verdict["reason"]


def test_a_kernel_that_nobody_can_reach_goes_back_at_its_deadline(machine):
    before = begin(machine, ["systemd.mask=ssh.service"], timeout_s=60)
    verdict = wait_until_back(machine, before)
    assert verdict["reason"] == "not promoted within 60 s"


def test_a_kernel_that_fails_its_gate_goes_back_with_the_reason(machine):
    before = begin(machine, ["modprobe.blacklist=i6300esb"])
    machine.wait_for_boot_after(before)
    on_trial = machine.boot_id()
    done = kanctl(machine, "promote", "--check")
    assert done.returncode == 3, done.stderr
    assert "had the driver i6300ESB and has none" in done.stderr
    done = kanctl(machine, "promote", "--yes")
    assert done.returncode == 3
    problem = done.stderr.strip().splitlines()[-1]
    machine.run(f"kanctl-kernel reject '{problem[:60]}'")
    verdict = wait_until_back(machine, on_trial)
    assert verdict["reason"].startswith("gate: ")


def test_a_power_cut_while_on_trial_ends_with_the_old_arguments(machine):
    before = begin(machine, ["kanctl.test=1"])
    machine.wait_for_boot_after(before)
    assert "kanctl.test=1" in machine.run("cat /proc/cmdline")
    on_trial = machine.boot_id()
    machine.power_cut()
    machine.power_on()
    verdict = wait_until_back(machine, on_trial)
    assert "ended before it was promoted" in verdict["reason"]
    assert "kanctl.test=1" not in machine.run("cat /proc/cmdline")


def test_arguments_of_a_profile_are_tried_and_kept(machine):
    before = machine.boot_id()
    done = kanctl(machine, "tune", "--profile", "inference", "--yes")
    assert done.returncode == 0, done.stderr
    assert machine.boot_id() != before
    now = state(machine)
    assert (now["trial"], now["history"][-1]["good"]) == (None, True)
    machine.reboot()
    running = machine.run("cat /proc/cmdline").split()
    assert "kanctl.trial" not in " ".join(running)
    assert set(running) >= INFERENCE
    assert kanctl(machine, "tune", "--profile", "inference", "--yes").stderr.count("nothing to try") == 1
