"""Pure verdicts on a node among the others: clock, memory size, peers, shared folder, same versions."""

from collections import Counter
from statistics import median

from .finding import Verdict, View, not_applicable, passed

CLOCK_OFFSET_MAX_MS = 100.0
MEMORY_TOLERANCE = 0.05
SHARED_WRITE_MAX_S = 5.0
GIB = 2**30


def judge_clock_offset(view: View) -> Verdict:
    """D6: logs, time stamps and certificates of different nodes must fit together."""
    if view.clock is None:
        return not_applicable("this is the machine whose clock the others are compared with")
    offset_ms, uncertainty_ms = view.clock.offset_ms, view.clock.uncertainty_ms
    wanted = f"within {CLOCK_OFFSET_MAX_MS:.0f} ms of the controller"
    found = f"{offset_ms:+.0f} ms (±{uncertainty_ms:.0f} ms)"
    if abs(offset_ms) + uncertainty_ms <= CLOCK_OFFSET_MAX_MS:
        return passed(wanted, found)
    if abs(offset_ms) - uncertainty_ms <= CLOCK_OFFSET_MAX_MS:
        return Verdict(
            status="unknown", wanted=wanted, found=f"{found}: the round trip is too slow to tell", next_step="try again"
        )
    return Verdict(
        status="fail",
        wanted=wanted,
        found=found,
        where="date",
        next_step="the container's host needs time synchronisation"
        if view.facts.is_container
        else "chronyc tracking, or timedatectl timesync-status; then chronyc makestep",
    )


def judge_clock_sync(view: View) -> Verdict:
    """D6: a clock that is right today stays right only with a time service."""
    sync = view.facts.clock_sync
    if view.facts.is_container:
        return not_applicable("a container's clock is its host's")
    wanted = "a time service that runs and has synchronised the clock"
    if not sync.services:
        return Verdict(
            status="fail",
            wanted=wanted,
            found="no time service runs",
            where="systemctl is-active chrony systemd-timesyncd",
            next_step="kanctl provision nodes",
        )
    services = ", ".join(sync.services)
    if sync.is_synchronised:
        return passed(wanted, services)
    return Verdict(
        status="unknown" if sync.is_synchronised is None else "warn",
        wanted=wanted,
        found=f"{services} runs; synchronised: {'not known' if sync.is_synchronised is None else 'no'}",
        where="timedatectl",
        next_step="chronyc sources, or timedatectl timesync-status: are its servers reachable?",
    )


def judge_memory_size(view: View) -> Verdict:
    """D3: a memory module that failed its test is silently left out by the firmware."""
    found_gib = view.facts.memory_total_bytes / GIB
    found = f"{found_gib:.1f} GiB"
    sizes_gib = [facts.memory_total_bytes / GIB for facts in view.fleet.values()]
    if view.declared.memory_gib is not None:
        wanted_gib, wanted_by = view.declared.memory_gib, "declared"
    elif len(sizes_gib) < 2:
        return not_applicable(f"{found}; none is declared and there is no other node to compare with")
    else:
        wanted_gib, wanted_by = median(sizes_gib), f"the middle of {len(sizes_gib)} nodes"
    wanted = f"{wanted_gib:.1f} GiB ±{MEMORY_TOLERANCE:.0%} ({wanted_by})"
    if abs(found_gib - wanted_gib) <= MEMORY_TOLERANCE * wanted_gib:
        return passed(wanted, found)
    # Of two nodes that differ, nobody can tell which one is wrong.
    has_majority = view.declared.memory_gib is not None or len(sizes_gib) > 2
    return Verdict(
        status="fail" if has_majority else "warn",
        wanted=wanted,
        found=found,
        where="/proc/meminfo",
        next_step="dmidecode -t memory; look for a module that the firmware left out",
    )


def judge_peers(view: View) -> Verdict:
    """C6: every node must reach every other, since ranks talk to each other and not through the controller."""
    peers = view.facts.peers
    if not peers:
        return not_applicable("there is no other node")
    lost = [peer for peer in peers if peer.error is not None]
    wanted = f"TCP to the SSH port of {len(peers)} other nodes"
    if not lost:
        slowest_ms = max(peer.ms or 0.0 for peer in peers)
        return passed(wanted, f"all, the slowest in {slowest_ms:.0f} ms")
    return Verdict(
        status="fail",
        wanted=wanted,
        found=f"not {', '.join(f'{peer.name} ({peer.error})' for peer in lost)}",
        where=f"from {view.node}",
        next_step=f"on {view.node}: nc -zv ADDRESS PORT; is it up, and is there a firewall between?",
    )


def judge_shared_writable(view: View) -> Verdict:
    """D10: checkpoints go there, and a slow write stops all ranks."""
    shared = view.facts.shared
    if shared is None:
        return not_applicable("kanctl_shared_dir is not declared")
    wanted = f"a small file written and synced within {SHARED_WRITE_MAX_S:.0f} s"
    if not shared.is_hung and shared.error is None and shared.seconds <= SHARED_WRITE_MAX_S:
        return passed(wanted, f"{shared.seconds * 1000:.0f} ms")
    found = "no answer" if shared.is_hung else shared.error or f"{shared.seconds:.1f} s"
    return Verdict(
        status="fail",
        wanted=wanted,
        found=found,
        where=shared.path,
        next_step=f"findmnt -T {shared.path}; is it mounted writable, and is its server up?",
    )


def judge_shared_same(view: View) -> Verdict:
    """D10: a folder that is not mounted looks like an empty one."""
    shared = view.facts.shared
    writers = {
        name
        for name, facts in view.fleet.items()
        if facts.shared is not None and not facts.shared.is_hung and facts.shared.error is None
    }
    if shared is None:
        return not_applicable("kanctl_shared_dir is not declared")
    if len(view.fleet) < 2:
        return not_applicable("there is no other node to share with")
    wanted = f"the files of {len(writers)} nodes"
    if view.seen_tokens is None:
        return Verdict(
            status="unknown",
            wanted=wanted,
            found="the folder does not answer",
            where=shared.path,
            next_step="see shared-writable",
        )
    missing = sorted(writers - set(view.seen_tokens))
    if not missing:
        return passed(wanted, "all of them")
    return Verdict(
        status="fail",
        wanted=wanted,
        found=f"not the file of {', '.join(missing)}",
        where=shared.path,
        next_step=f"findmnt -T {shared.path} on {view.node} and {missing[0]}: one has something else mounted there",
    )


def judge_versions(view: View) -> Verdict:
    """A5: different versions on different nodes hang or differ in ways that nobody finds."""
    wrong: list[tuple[str, str, str]] = []
    for item, own in view.facts.versions.items():
        counts = Counter(facts.versions.get(item) for facts in view.fleet.values())
        # A node without a venv is trainer-venv's finding, not a version.
        counts.pop(None, None)
        if own is not None and len(counts) > 1:
            most = max(counts.values())
            usual = sorted(version for version, count in counts.items() if count == most and version is not None)
            if usual != [own]:
                wrong.append((item, own, " or ".join(usual)))
    if len(view.fleet) < 2:
        return not_applicable("there is no other node to compare with")
    known = ", ".join(f"{item} {own}" for item, own in view.facts.versions.items() if own is not None)
    if not wrong:
        return passed("the same as the others", known)
    return Verdict(
        status="fail",
        wanted=", ".join(f"{item} {usual}" for item, _, usual in wrong),
        found=", ".join(f"{item} {own}" for item, own, _ in wrong),
        where=view.facts.venv,
        next_step="kanctl provision nodes; for the kernel: install the same one and reboot",
    )
