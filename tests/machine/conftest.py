"""One QEMU machine for all tests in which the kernel is the subject; skips with the reason where there can be none.

A boot takes half a minute on an idle host and minutes on a busy one, so the machine boots once and its state is kept:
every test that asks for `machine` gets it back as it was then, within two seconds.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kanctl.lab import tools
from kanctl.lab.errors import LabToolsMissing
from kanctl.lab.machines import login, machines, power
from kanctl.lab.model import STATE_ROOT, LabSpec, LabStatus
from kanctl.lab.state import LabPaths

BOOTED = "booted"


@dataclass(frozen=True)
class Machine:
    """One node of a lab of machines, under test."""

    lab: str
    node: str = "node1"

    @property
    def paths(self) -> LabPaths:
        return LabPaths(name=self.lab, state_root=STATE_ROOT)

    def status(self) -> LabStatus:
        return machines.read_status(self.lab)

    def run(self, command: str, timeout_s: float = 300) -> str:
        """What the command said; a failing one fails the test."""
        return login.run(self.lab, self.node, command, timeout_s=timeout_s)

    def boot_id(self) -> str:
        return login.wait_for_ssh(self.lab, self.node)

    def wait_for_boot_after(self, boot_id: str, timeout_s: float = login.BOOT_TIMEOUT_S) -> str:
        """Wait until the machine answers in another boot than that; returns the new one's id."""
        return login.wait_for_ssh(self.lab, self.node, not_boot_id=boot_id, timeout_s=timeout_s)

    def reboot(self) -> str:
        """Reboot in order, and wait; returns the new boot's id."""
        before = self.boot_id()
        self.run("systemctl reboot --no-block")
        return self.wait_for_boot_after(before)

    def power_cut(self) -> None:
        power.power_cut(self.lab, self.node)

    def power_on(self) -> None:
        power.power_on(self.lab, self.node)

    def save(self, tag: str) -> None:
        """Keep memory and disk; `load` brings them back in seconds."""
        power.save(self.lab, self.node, tag)

    def load(self, tag: str) -> None:
        power.load(self.lab, self.node, tag)
        self.boot_id()

    def serial_log(self) -> str:
        return power.serial_log(self.lab, self.node)


@pytest.fixture(scope="session")
def machine_host() -> None:
    """This machine can hold QEMU machines; skips otherwise."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    try:
        tools.require_all(tools.MACHINE_PACKAGES)
    except LabToolsMissing as error:
        pytest.skip(f"{error}: {error.next_step}")


@pytest.fixture(scope="session")
def booted_machine(machine_host: None) -> Iterator[Machine]:
    """A machine that has booted once, with that state kept; its name holds our process id, so test runs do not meet."""
    shared = Machine(lab=f"m{os.getpid() % 1_000_000}")
    try:
        machines.up(LabSpec(name=shared.lab, node_count=1), print)
        shared.run("systemctl is-system-running --wait")
        shared.save(BOOTED)
        yield shared
    finally:
        machines.down(shared.lab, print)
    assert power.find_pids(shared.paths) == []
    assert not shared.paths.folder.exists()


@pytest.fixture
def machine(booted_machine: Machine) -> Machine:
    """The machine as it was after its first boot."""
    booted_machine.load(BOOTED)
    return booted_machine
