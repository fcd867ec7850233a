"""One function per train verb: what the commands of cli/commands/train.py call after reading their arguments."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kanctl import __version__
from kanctl.errors import BadInputError, KanctlError
from kanctl.trainer.config import RunConfig, apply_overrides, load_recipe, to_dict

from ..context import load, select_nodes
from ..output import print_note
from .ask import ask_module, option_words
from .launch import Launch, check_nodes, read_launch, start_run, stop_units, write_launch, write_run_folder
from .local import local_state, start_local_run, stop_local_run
from .names import check_name, corpus_dir, new_run_name
from .place import LocalPlace, Place, means_local, open_place
from .runs import ENDED, launch_nodes, pick_run, read_status


def launch_recipe(
    recipe: str,
    *,
    overrides: Sequence[str],
    inventory: Path | None,
    limit: str | None,
    local: bool,
    name: str | None,
    processes: int | None,
    check: bool,
) -> Launch | None:
    """Start a new run of a recipe; None with `check`, which stops after everything was verified."""
    config = apply_overrides(load_recipe(recipe), overrides)
    run = check_name("run", name or new_run_name(config.name))
    with open_place(inventory, local=local) as place:
        if local:
            return _launch_here(place, config, run, processes or 1, check)
        nodes = select_nodes(load(inventory), limit)
        print_note(f"{run}: {len(nodes)} nodes: {', '.join(node.name for node in nodes)}")
        check_nodes(place, nodes, config.data.corpus)
        if check:
            return None
        write_run_folder(place, run, to_dict(config))
        return start_run(place, nodes, run, config.data.corpus, processes)


def _launch_here(place: Place, config: RunConfig, run: str, processes: int, check: bool) -> Launch | None:
    assert isinstance(place, LocalPlace)
    manifest = Path(corpus_dir(place.data_dir, config.data.corpus), "manifest.json")
    if not manifest.is_file():
        raise KanctlError(f"no corpus {config.data.corpus}: {manifest} is missing", "kanctl train prepare --local")
    if check:
        return None
    write_run_folder(place, run, to_dict(config))
    return start_local_run(place, run, config.data.corpus, processes)


def resume_run(place: Place, run: str | None) -> Launch:
    """Start an ended run again on the same nodes; the trainer goes on from its last good checkpoint."""
    name = pick_run(place, run)
    launch = read_launch(place, name)
    if launch is None:
        raise KanctlError(f"{name} was never started on {place.name}")
    status = read_status(place, name)
    if status.state not in ENDED:
        raise KanctlError(f"{name} is {status.state}; only an ended run can be resumed", f"kanctl train stop {name}")
    corpus = status.corpus
    if isinstance(place, LocalPlace):
        return start_local_run(place, name, corpus, launch.world_size)
    nodes = launch_nodes(place, launch)
    check_nodes(place, nodes, corpus)
    return start_run(place, nodes, name, corpus, launch.processes_per_node[0])


def stop_run(place: Place, run: str | None) -> dict[str, str]:
    """End a run after its next checkpoint; per node what happened. Raises KanctlError when a node did not stop."""
    name = pick_run(place, run)
    launch = read_launch(place, name)
    if launch is None:
        raise BadInputError(f"{name} was never started on {place.name}")
    # Noted first: a run that is stopped before its workers are up leaves no end record of its own.
    write_launch(place, replace(launch, stop_asked_unix_s=time.time()))
    if isinstance(place, LocalPlace):
        results = {place.name: stop_local_run(launch) if local_state(launch) == "active" else "stopped"}
    else:
        results = stop_units(launch_nodes(place, launch), launch)
    wrong = {node: text for node, text in results.items() if text != "stopped"}
    if wrong:
        raise KanctlError(f"{name} did not stop: " + "; ".join(f"{node}: {text}" for node, text in wrong.items()))
    return results


def prepare_corpus(place: Place, *, name: str, source: str | None, replace: bool) -> None:
    """Make a corpus in the place's data folder, with the module's own progress as notes."""
    words = ["--out", corpus_dir(place.data_dir, name)]
    words += ["--source", source] if source else []
    words += ["--replace"] if replace else []
    for line in place.stream_module("prepare", words):
        print_note(line)


def explain_recipe(
    recipe: str, overrides: Sequence[str], capability: str | None, *, inventory: Path | None, local: bool
) -> dict[str, Any]:
    """What the module explain answers where the recipe would train; mistakes are told before any node is asked."""
    config = apply_overrides(load_recipe(recipe), overrides)
    if capability is not None and not re.fullmatch(r"\d{1,2}\.\d", capability):
        raise BadInputError(f"--capability: wanted a compute capability such as 9.0, found {capability!r}")
    options = option_words({"config": json.dumps(to_dict(config)), "capability": capability})
    with open_place(inventory, local=means_local(inventory, local)) as place:
        return ask_module(place, "explain", options)


def run_bench(
    what: str, only: str | None, minutes: float | None, *, inventory: Path | None, local: bool
) -> dict[str, Any]:
    """What a benchmark's module answers on the first node: of whole trainings, all ops, or a group by its name."""
    options: dict[str, object] = {"minutes": minutes, "commit": __version__}
    if what == "model":
        module, options = "bench.model", options | {"matching": only, "json": True}
    else:
        module, options = "bench.ops", options | {"groups": None if what == "ops" else what, "only": only}
    with open_place(inventory, local=means_local(inventory, local)) as place:
        return ask_module(place, module, option_words(options))
