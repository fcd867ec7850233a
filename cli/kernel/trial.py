"""Trials of kernels on nodes: install, tune and promote. The node guards itself (role kernel_install); this only asks.

Between the restart and the promotion stands kanctl's own health check: what fails after the restart and did not fail
before speaks against the kernel.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanctl.errors import CheckFailedError, KanctlError, NodeUnreachableError
from kanctl.inventory import Cluster, Node
from kanctl.kernel.boot.measure import check_bundle

from ..context import playbooks_dir
from ..health_run import check_cluster
from ..output import print_note
from ..provisioning.run import ProvisionOptions, provision, raise_for_failures
from ..remote import Remote, on_every_node

# A clock is set minutes after a restart; the kernel is judged before that.
NOT_THE_KERNELS = {"clock-offset"}
COMMAND = "/usr/local/sbin/kanctl-kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTrial:
    """What one node says of its kernel and of what is on trial."""

    node: str
    running: str = ""
    loader: str = ""
    last_good: str = ""
    trial: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()
    error: KanctlError | None = None

    def document(self) -> dict[str, Any]:
        """The node as one JSON object."""
        return {
            "node": self.node,
            "running": self.running,
            "loader": self.loader,
            "last_good": self.last_good,
            "trial": dict(self.trial) if self.trial else None,
            "last_verdict": dict(self.last) if self.last else None,
            "problems": list(self.problems),
            "error": str(self.error) if self.error else None,
        }


def install(cluster: Cluster, nodes: Sequence[Node], bundle: Path, *, check: bool) -> None:
    """Try a bundle's kernel on one node after the other, and keep it where it is good. A bad one stops the wave.

    Raises KanctlError (a node went back), NodeUnreachableError, FragmentInvalid for what is no bundle.
    """
    manifest = check_bundle(bundle)
    variables = {"kernel_install_bundle_dir": str(bundle.resolve())}
    for node in nodes:
        print_note(f"{node.name}: {'would try' if check else 'trying'} {manifest['release']}")
        _try_on(cluster, node, playbooks_dir() / "kernel.yml", variables, check)


def tune(cluster: Cluster, nodes: Sequence[Node], profile: str | None, *, check: bool) -> None:
    """Try the boot arguments that the inventory (or `profile`) declares; they become permanent where they are good."""
    variables = {"node_tuning_profile": profile} if profile else {}
    for node in nodes:
        print_note(f"{node.name}: {'would try' if check else 'trying'} the arguments of {profile or 'the inventory'}")
        _try_on(cluster, node, playbooks_dir() / "kernel-tune.yml", variables, check)
    if profile and not check:
        print_note(f"the next provisioning writes what the inventory says: set node_tuning_profile: {profile} there")


def promote(cluster: Cluster, nodes: Sequence[Node], variables: Mapping[str, object] | None = None) -> None:
    """Judge what is on trial on the nodes, and keep it. Raises KanctlError for one that does not pass."""
    for node in nodes:
        _play(cluster, node, playbooks_dir() / "kernel-promote.yml", dict(variables or {}), check=False)


def read_trials(nodes: Sequence[Node]) -> list[NodeTrial]:
    """The state of every node, asked at once; nothing changes."""
    answers = on_every_node(nodes, _read_trial)
    return [
        answer if isinstance(answer, NodeTrial) else NodeTrial(node=name, error=answer)
        for name, answer in answers.items()
    ]


def verdict(trials: Sequence[NodeTrial]) -> KanctlError | None:
    """What the states amount to: unreachable, fell back, or a gate that does not pass."""
    silent = [trial for trial in trials if trial.error]
    if silent:
        return NodeUnreachableError(f"{len(silent)} nodes did not answer: {', '.join(row.node for row in silent)}")
    fallen = [row for row in trials if row.trial is None and row.last and not row.last["good"]]
    if fallen:
        listed = "\n  ".join(f"{row.node}: {row.last['release']}: {row.last['reason']}" for row in fallen if row.last)
        return KanctlError(f"{len(fallen)} nodes went back to their last good kernel:\n  {listed}")
    failing = [row for row in trials if row.trial and row.problems]
    if failing:
        listed = "\n  ".join(f"{row.node}: {'; '.join(row.problems)}" for row in failing)
        return CheckFailedError(f"{len(failing)} nodes do not pass the gate:\n  {listed}")
    return None


def rows(trials: Sequence[NodeTrial]) -> list[tuple[str, str, str, str, str]]:
    """A table's rows: node, running kernel, last good one, what is on trial, what is said of it."""
    return [
        (
            row.node,
            row.running or "-",
            row.last_good or "-",
            f"{row.trial['kind']} {row.trial['release']} ({row.trial['phase']})" if row.trial else "-",
            "; ".join(row.problems) or (str(row.error) if row.error else _last(row.last)),
        )
        for row in trials
    ]


def _try_on(cluster: Cluster, node: Node, playbook: Path, variables: Mapping[str, object], check: bool) -> None:
    before = set() if check else _failing(cluster, node)
    settings = {**variables, "kernel_install_allow_reboot": True, "kernel_install_promote": False}
    _play(cluster, node, playbook, settings, check=check)
    if check:
        return
    trial = read_trials([node])[0]
    if trial.error:
        raise trial.error
    if trial.trial is None:
        error = verdict([trial])
        if error is not None:
            raise error
        print_note(f"{node.name}: runs {trial.running} already; nothing to try")
        return
    new = sorted(_failing(cluster, node) - before)
    promote(cluster, [node], {"kernel_install_further_problems": [f"health check: {text}" for text in new]})
    print_note(f"{node.name}: {trial.trial['release']} is the default from now on")


def _failing(cluster: Cluster, node: Node) -> set[str]:
    """The checks of `health check` that fail on a node, by name and what was found."""
    report = check_cluster(cluster, [node])
    if report.problems:
        return {f"no answer: {error}" for error in report.problems.values()}
    return {finding.check for finding in report.findings if finding.status == "fail"} - NOT_THE_KERNELS


def _play(cluster: Cluster, node: Node, playbook: Path, variables: Mapping[str, object], *, check: bool) -> None:
    options = ProvisionOptions(limit=(node.name,), check=check, variables=variables)
    report = provision(playbook, cluster.path, (node.name,), options)
    raise_for_failures(report, ("kanctl", "kernel", "promote", "--check"))


def _read_trial(remote: Remote) -> NodeTrial:
    answer = remote.run([COMMAND, "status"], as_root=True)
    if answer.code == 127:
        return NodeTrial(node=remote.node.name)
    state = json.loads(answer.stdout)
    if "error" in state:
        return NodeTrial(node=remote.node.name, problems=(state["error"],))
    judged = json.loads(remote.run([COMMAND, "gate"], as_root=True).stdout) if state["trial"] else {"problems": []}
    return NodeTrial(
        node=remote.node.name,
        running=state["running"],
        loader=state["loader"],
        last_good=state["last_good"],
        trial=state["trial"],
        last=state["history"][-1] if state["history"] else None,
        problems=tuple(judged.get("problems", ())),
    )


def _last(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return ""
    return f"{verdict['release']} {'passed' if verdict['good'] else 'failed: ' + str(verdict['reason'])}"
