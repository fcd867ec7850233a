"""Runs the health probe on every node at once, or here, and has the facts judged. Rendering is health_view.py's work.

The probe travels over SSH to the node's own python3, so that a node that was never provisioned can be checked too.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kanctl.errors import KanctlError
from kanctl.inventory import Cluster, Node
from kanctl.monitoring.health import probe
from kanctl.monitoring.health.catalog import judge, select_checks
from kanctl.monitoring.health.facts import NodeFacts, facts_from_dict
from kanctl.monitoring.health.finding import ClockOffset, Declared, Finding, View

from .context import user_data_dir
from .declared_kernel import declared_arguments
from .remote import Remote, on_every_node

NODE_VENV = "/opt/kanctl/venv"
PROBE_TIMEOUT_S = 60.0
CLOCK_TRIES = 6
# Good enough beside the threshold of 100 ms: no need to look at the clock again.
CLOCK_UNCERTAINTY_GOAL_MS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """What a check of some nodes found; `problems` holds the nodes that could not be checked."""

    cluster: str
    time_unix_s: float
    nodes: tuple[str, ...]
    findings: tuple[Finding, ...]
    problems: dict[str, KanctlError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probed:
    facts: NodeFacts
    clock: ClockOffset


def check_cluster(cluster: Cluster, nodes: Sequence[Node], only: Sequence[str] = ()) -> HealthReport:
    """Check `nodes` against their inventory and each other. Raises UnknownCheck before any node is touched."""
    checks = select_checks(only)
    token = f".kanctl-health-{secrets.token_hex(6)}"
    try:
        answers = on_every_node(nodes, lambda remote: _probe_node(remote, nodes, cluster.shared_dir, token))
        probed = {name: answer for name, answer in answers.items() if isinstance(answer, _Probed)}
        problems = {name: answer for name, answer in answers.items() if isinstance(answer, KanctlError)}
        alive = [node for node in nodes if node.name in probed]
        seen = _see_tokens(alive, cluster.shared_dir, token) if len(alive) > 1 and cluster.shared_dir else {}
    finally:
        if cluster.shared_dir:
            request = {"do": "remove", "shared_dir": cluster.shared_dir, "token": token}
            on_every_node(nodes, lambda remote: _ask_quietly(remote, request))
    fleet = {name: found.facts for name, found in probed.items()}
    views = [
        View(
            node=node.name,
            facts=fleet[node.name],
            declared=_declared(node, fleet[node.name].kernel.release),
            fleet=fleet,
            clock=probed[node.name].clock,
            seen_tokens=seen.get(node.name),
        )
        for node in alive
    ]
    return HealthReport(
        cluster=cluster.name,
        time_unix_s=time.time(),
        nodes=tuple(node.name for node in nodes),
        findings=tuple(judge(views, checks)),
        problems=problems,
    )


def check_this_machine(only: Sequence[str] = ()) -> HealthReport:
    """Check the machine that this runs on, with the environment and the data folder that `--local` training uses."""
    checks = select_checks(only)
    data_dir = user_data_dir()
    token = f".kanctl-health-{secrets.token_hex(6)}"
    request: dict[str, object] = {"name": "here", "venv": sys.prefix, "token": token}
    if data_dir.is_dir():
        request["shared_dir"] = str(data_dir)
    facts = facts_from_dict(_probe_here(request))
    if data_dir.is_dir():
        _probe_here({**request, "do": "remove"})
    view = View(node="here", facts=facts, declared=Declared(), fleet={"here": facts})
    return HealthReport(
        cluster="this machine", time_unix_s=time.time(), nodes=("here",), findings=tuple(judge([view], checks))
    )


def _probe_here(request: Mapping[str, object]) -> object:
    words = [sys.executable, "-m", probe.__name__, json.dumps(request)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise KanctlError(f"the health probe ended with {done.returncode} here: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def _probe_node(remote: Remote, nodes: Sequence[Node], shared_dir: str | None, token: str) -> _Probed | KanctlError:
    peers = [{"name": n.name, "address": n.address, "port": n.port} for n in nodes if n.name != remote.node.name]
    request: dict[str, object] = {"name": remote.node.name, "venv": NODE_VENV, "token": token, "peers": peers}
    if shared_dir:
        request["shared_dir"] = shared_dir
    try:
        return _Probed(facts=facts_from_dict(_ask(remote, request)), clock=measure_clock(remote))
    except KanctlError as error:
        # One node whose probe fails is one row of the report; the others are still checked.
        return error


def _see_tokens(nodes: Sequence[Node], shared_dir: str, token: str) -> dict[str, tuple[str, ...]]:
    request = {"do": "seen", "shared_dir": shared_dir, "token": token}
    answers = on_every_node(nodes, lambda remote: _ask_quietly(remote, request))
    return {name: tuple(answer) for name, answer in answers.items() if isinstance(answer, list)}


def _ask(remote: Remote, request: Mapping[str, object]) -> object:
    """The probe's answer on a node. As root, because that is who trains and writes to the shared folder."""
    python = str(remote.node.variables.get("ansible_python_interpreter", "/usr/bin/python3"))
    source = Path(probe.__file__).read_text(encoding="utf-8")
    words = [python, "-", json.dumps(request)]
    answer = remote.run(words, stdin=source, timeout_s=PROBE_TIMEOUT_S, as_root=True)
    if answer.code != 0:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise KanctlError(f"{answer.node}: the health probe ended with {answer.code}: {last}", f"is {python} there?")
    return json.loads(answer.stdout)


def _ask_quietly(remote: Remote, request: Mapping[str, object]) -> object:
    try:
        return _ask(remote, request)
    except KanctlError:
        # That this node does not answer is in the report already.
        return None


def measure_clock(remote: Remote) -> ClockOffset:
    """The node's clock against this machine's, the quickest of a few looks. Shell: ssh NODE date +%s.%N; date +%s.%N"""
    best: ClockOffset | None = None
    for _ in range(CLOCK_TRIES):
        before_s = time.time()
        line = next(remote.stream(["date", "+%s.%N"], silence_s=10), None)
        after_s = time.time()
        if line is None:
            raise KanctlError(f"{remote.node.name}: `date` printed nothing")
        offset = ClockOffset(
            offset_ms=1000 * (float(line) - (before_s + after_s) / 2), uncertainty_ms=500 * (after_s - before_s)
        )
        if best is None or offset.uncertainty_ms < best.uncertainty_ms:
            best = offset
        if best.uncertainty_ms <= CLOCK_UNCERTAINTY_GOAL_MS:
            break
    assert best is not None
    return best


def _declared(node: Node, release: str) -> Declared:
    recorded = node.variables.get("kanctl_recorded_hardware")
    memory_gib = node.variables.get("kanctl_memory_gib")
    return Declared(
        gpu_count=node.gpu_count,
        memory_gib=float(memory_gib) if isinstance(memory_gib, int | float) else None,
        recorded_hardware=str(recorded) if recorded else None,
        cpu_governor=str(node.variables.get("node_tuning_cpu_governor", "performance")),
        kernel_arguments=declared_arguments(node, release),
    )
