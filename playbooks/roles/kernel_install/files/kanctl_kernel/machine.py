"""The trial as a state machine: an event and a state give the next state and what to do. Pure; the rest only obeys.

Power may go at any point. So every change of the boot loader stands between two states that both lead to a kernel that
works: before it the state says what is about to happen, and a boot that finds such a state finishes or undoes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# What the edge carries out, in the order given.
DISARM = "disarm"
ARM = "arm"
KEEP = "keep"
WAIT = "wait"
REBOOT = "reboot"

# arming, armed: about to be tried. booted: running, not yet judged good. promoting: judged good, loader not yet told.
PHASES = ("arming", "armed", "booted", "promoting")
HISTORY_MAX = 50


@dataclass(frozen=True)
class Trial:
    """One kernel or one set of boot arguments on trial."""

    id: str
    kind: str
    release: str
    armed_boot_id: str
    started_unix_s: int
    timeout_s: int
    phase: str = "arming"
    booted_boot_id: str = ""
    config_sha256: str = ""
    arguments: tuple[str, ...] = ()
    # Where the arguments of a `tune` trial come from, for whoever keeps them.
    profile: str = ""
    # `path driver` of every device that had a driver before, and the units that had failed before.
    devices: tuple[str, ...] = ()
    failed_units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """How a trial ended."""

    id: str
    kind: str
    release: str
    good: bool
    reason: str
    unix_s: int


@dataclass(frozen=True)
class State:
    """All that is remembered between boots."""

    last_good: str = ""
    trial: Trial | None = None
    history: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class Boot:
    """What runs now."""

    release: str
    boot_id: str
    arguments: tuple[str, ...]
    unix_s: int

    def is_of(self, trial: Trial) -> bool:
        """Whether this boot was started by the trial's own entry."""
        return f"kanctl.trial={trial.id}" in self.arguments


def begin(state: State, trial: Trial, boot: Boot) -> tuple[State, Sequence[str]]:
    """Put a kernel on trial; the running one becomes the one to come back to."""
    if state.trial is not None:
        raise ValueError(f"{state.trial.release} is on trial already")
    return replace(state, last_good=boot.release, trial=trial), (ARM,)


def armed(state: State) -> State:
    """The boot loader has been told."""
    assert state.trial is not None
    return replace(state, trial=replace(state.trial, phase="armed"))


def on_boot(state: State, boot: Boot) -> tuple[State, Sequence[str]]:
    """What a boot means; called once early in every boot, and harmless when called again."""
    trial = state.trial
    if trial is None:
        # What a power cut left of a trial that ended is cleared away.
        return state, (DISARM,)
    if trial.phase == "promoting":
        # It had passed its gate; only the loader was still to be told.
        return state, (KEEP,)
    if boot.boot_id == trial.armed_boot_id or boot.boot_id == trial.booted_boot_id:
        return state, ()
    if trial.phase != "booted" and boot.is_of(trial):
        running = replace(trial, phase="booted", booted_boot_id=boot.boot_id)
        return replace(state, trial=running), (WAIT,)
    if trial.phase == "booted":
        reason = "it ended before it was promoted: a crash, the watchdog, a power cut or a reboot"
    elif trial.phase == "arming":
        reason = "the node restarted while the trial was being prepared"
    else:
        reason = f"the node came back with {boot.release} instead: a panic, a hang or a power cut"
    return fail(state, reason, boot), (DISARM,)


def on_deadline(state: State, boot: Boot) -> tuple[State, Sequence[str]]:
    """Nobody promoted the trial in time."""
    trial = state.trial
    if trial is None or trial.phase != "booted":
        return state, ()
    return fail(state, f"not promoted within {trial.timeout_s} s", boot), (DISARM, REBOOT)


def on_gate(state: State, boot: Boot, problems: Sequence[str]) -> tuple[State, Sequence[str]]:
    """The gate's answer: any problem ends the trial."""
    if state.trial is None or not problems:
        return state, ()
    return fail(state, "gate: " + "; ".join(problems), boot), (DISARM, REBOOT)


def promote(state: State) -> tuple[State, Sequence[str]]:
    """The kernel is good: say so first, then tell the loader, then `promoted`."""
    if state.trial is None or state.trial.phase not in {"booted", "promoting"}:
        raise ValueError("nothing that runs is on trial")
    return replace(state, trial=replace(state.trial, phase="promoting")), (KEEP,)


def promoted(state: State, boot: Boot) -> State:
    """The loader has been told."""
    trial = state.trial
    assert trial is not None
    return _end(replace(state, last_good=trial.release), trial, True, "passed its gate", boot)


def fail(state: State, reason: str, boot: Boot) -> State:
    """The trial ends badly; the node stays with, or goes back to, the last good kernel."""
    assert state.trial is not None
    return _end(state, state.trial, False, reason, boot)


def _end(state: State, trial: Trial, good: bool, reason: str, boot: Boot) -> State:
    verdict = Verdict(id=trial.id, kind=trial.kind, release=trial.release, good=good, reason=reason, unix_s=boot.unix_s)
    return replace(state, trial=None, history=(*state.history, verdict)[-HISTORY_MAX:])


def prunable(installed: Sequence[str], ours: Sequence[str], state: State, running: str, keep: int) -> list[str]:
    """Kernels of ours that may go: all but the newest `keep`, never the running, the last good or one on trial.

    `installed` is in the order of installation, oldest first; a distribution's own kernels are never ours to remove.
    """
    protected = {running, state.last_good, *([state.trial.release] if state.trial else [])}
    candidates = [release for release in installed if release in ours]
    newest = set(candidates[len(candidates) - keep :]) if keep else set()
    return [release for release in candidates if release not in protected | newest]
