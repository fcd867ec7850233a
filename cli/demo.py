"""`make demo`: kanctl's main job from end to end, in the very commands that a user types.

Brings up a virtual cluster of its own, provisions it, checks it, trains on both nodes, looks at them meanwhile,
evaluates, samples, and takes everything down again. Without the right to make containers it trains on this machine.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from kanctl.errors import KanctlError
from kanctl.lab import host, tools

from . import exits
from .output import print_answer, print_note, print_table

LAB_NAME = "demo"
NODES = 2
RECIPE = "tiny"
# The least fall of the training loss that the demo calls learning.
LOSS_FALL_MIN = 1 / 3
POLL_S = 3.0


@dataclass(slots=True)
class Demo:
    """The steps done so far with their seconds, and what the closing summary tells."""

    local: bool
    environment: dict[str, str]
    seconds: list[tuple[str, float]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)

    def step(self, title: str, words: Sequence[str], *, quiet: bool = False) -> str:
        """Run one kanctl command, its stderr shown; gives its stdout. Raises KanctlError when it fails."""
        print_note(f"\n== {title}\n   $ kanctl {shlex.join(words)}")
        start = time.monotonic()
        done = self.kanctl(words)
        self.seconds.append((title, time.monotonic() - start))
        if done.returncode != 0:
            print_note(done.stdout)
            raise KanctlError(f"the step '{title}' ended with {done.returncode}", "its message is above")
        if not quiet and done.stdout:
            print_answer(done.stdout.rstrip())
        return done.stdout

    def kanctl(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Any kanctl command, its exit status left to the caller."""
        command = [sys.executable, "-m", "kanctl.cli", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment) as process:
            try:
                stdout, _ = process.communicate()
            except KeyboardInterrupt:
                # The command has heard it too; killing it would leave its work on the nodes half done.
                process.communicate()
                raise
        if process.returncode == exits.INTERRUPTED:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, process.returncode, stdout)


def run_demo() -> None:
    """The whole demo. Raises KanctlError with the step that failed; the lab is taken down either way."""
    reason = why_no_lab()
    with tempfile.TemporaryDirectory(prefix="kanctl-demo-") as folder:
        environment = {**os.environ, "KANCTL_INVENTORY": f"/var/lib/kanctl/{LAB_NAME}/inventory/hosts.yml"}
        if reason:
            print_note(f"no virtual cluster here ({reason}): training on this machine alone")
            environment["KANCTL_HOME"] = folder
            del environment["KANCTL_INVENTORY"]
        demo = Demo(local=reason is not None, environment=environment)
        if demo.local:
            train_and_show(demo)
        else:
            try:
                bring_up(demo)
                train_and_show(demo)
            finally:
                demo.step("take the lab down", ["lab", "down", "--name", LAB_NAME])
    print_summary(demo)


def why_no_lab() -> str | None:
    """Why this machine cannot run the virtual cluster, None when it can."""
    try:
        tools.require_all()
        host.require_ability()
    except KanctlError as error:
        return str(error)
    return None


def bring_up(demo: Demo) -> None:
    """Lab, provisioning twice (the second changes nothing), health."""
    demo.step("bring the lab up", ["lab", "up", "--name", LAB_NAME, "--nodes", str(NODES)])
    first = json.loads(demo.step("provision the nodes", ["provision", "nodes", "--yes", "--json"], quiet=True))
    second = json.loads(demo.step("provision again", ["provision", "nodes", "--yes", "--json"], quiet=True))
    for node in first["nodes"]:
        changed = [
            next(n for n in result["nodes"] if n["node"] == node["node"])["changed"] for result in (first, second)
        ]
        demo.facts.append((f"{node['node']}: tasks that changed it", f"first {changed[0]}, again {changed[1]}"))
    demo.step("check the nodes' health", ["health", "check"])


def train_and_show(demo: Demo) -> None:
    """Corpus, run, a look at the nodes while it trains, evaluation, sample."""
    here = ["--local"] if demo.local else []
    demo.step("prepare the corpus", ["train", "prepare", *here])
    processes = ["--processes", str(NODES)] if demo.local else []
    run = demo.step("launch the training", ["train", "launch", RECIPE, *processes, *here], quiet=True).strip()
    start = time.monotonic()
    wait_for(demo, run, lambda status: (status["step"] or 0) > 0)
    if not demo.local:
        demo.step("look at the nodes while they train", ["telemetry", "view", "--once"])
    status = wait_for(demo, run, lambda status: status["state"] not in {"starting", "running"})
    demo.seconds.append(("train", time.monotonic() - start))
    if status["state"] != "finished":
        demo.kanctl(["train", "logs", run, *here])
        raise KanctlError(f"the run {run} is {status['state']}")
    score = json.loads(
        demo.step("evaluate", ["train", "evaluate", run, "--json", "--max-bytes", "65536", *here], quiet=True)
    )
    demo.step("sample", ["train", "sample", run, "--prompt", "import ", "--tokens", "120", *here])
    add_training_facts(demo, status, score)


def wait_for(demo: Demo, run: str, reached) -> dict:  # type: ignore[no-untyped-def,type-arg]
    """Poll the run's status, one progress line per new step, until `reached(status)` or the run has ended."""
    step = None
    while True:
        done = demo.kanctl(["train", "status", run, "--json", *(["--local"] if demo.local else [])])
        if done.returncode != 0:
            raise KanctlError(f"no status of {run}")
        status: dict = json.loads(done.stdout)  # type: ignore[type-arg]
        if status["step"] != step and status["loss_last_nats"] is not None:
            step = status["step"]
            print_note(f"   step {step}/{status['steps_total']}, loss {status['loss_last_nats']:.3f} nats")
        if reached(status) or status["state"] not in {"starting", "running"}:
            return status
        time.sleep(POLL_S)


def add_training_facts(demo: Demo, status: dict, score: dict) -> None:  # type: ignore[type-arg]
    """What the run achieved. Raises KanctlError when the loss did not fall enough to call it learning."""
    first, last = status["loss_first_nats"], status["loss_last_nats"]
    demo.facts.append(("training loss, nats per byte", f"{first:.3f} -> {last:.3f} ({last / first - 1:+.0%})"))
    for row in score["measures"]:
        baselines = ", ".join(f"{name} {value:.4g}" for name, value in row["baselines"].items())
        demo.facts.append((f"validation, {row['name']}", f"{row['value']:.4g} (without the model: {baselines})"))
    if last > first * (1 - LOSS_FALL_MIN):
        raise KanctlError(f"the loss fell from {first:.3f} only to {last:.3f}; wanted a fall of a third")


def print_summary(demo: Demo) -> None:
    """The closing table: seconds per step, then what came out."""
    total = sum(seconds for _, seconds in demo.seconds)
    rows = [(title, f"{seconds:.0f} s") for title, seconds in demo.seconds]
    print_table(["step", "took"], [*rows, ("all", f"{total:.0f} s")], title="make demo")
    print_table(["result", "value"], demo.facts)


def main() -> None:
    """Entry point of `python -m kanctl.cli.demo`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(exits.INTERRUPTED))
    try:
        run_demo()
    except KanctlError as error:
        print_note(f"make demo: {error}" + (f"\n  next: {error.next_step}" if error.next_step else ""))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print_note("make demo: interrupted; the lab was taken down")
        sys.exit(exits.INTERRUPTED)


if __name__ == "__main__":
    main()
