"""kanctl train: prepare text, launch runs, watch and stop them, evaluate and sample what they made."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..app import make_group
from ..context import InventoryOption, JsonOption, LimitOption
from ..output import print_answer, print_json, print_note, print_table

app = make_group("Prepare text, train on all nodes, evaluate and sample.")

LocalOption = Annotated[bool, typer.Option("--local", help="On this machine alone, without a cluster.")]
RunArgument = Annotated[str | None, typer.Argument(help="Name of the run; default: the newest.")]
CheckpointOption = Annotated[str, typer.Option(help="`last`, or the step of a checkpoint.")]


class Bench(StrEnum):
    """What `bench` measures: all ops, one of them (kanctl/trainer/bench/ops.py knows them so), or models."""

    OPS = "ops"
    EDGE = "edge"
    GROVE = "grove"
    ADA = "ada"
    MRA = "mra"
    KALMAN = "kalman"
    STEP = "step"
    DECODE = "decode"
    MODEL = "model"


class Task(StrEnum):
    """What `evaluate` measures; kanctl/trainer/evaluate.py knows them by these names."""

    TEXT = "text"
    TOKENS = "tokens"
    RECALL = "recall"
    CODE = "code"
    ALL = "all"


@app.command()
def prepare(
    name: Annotated[str, typer.Option(help="Name of the corpus, as recipes call it.")] = "stdlib",
    source: Annotated[str | None, typer.Option(help="Folder with text; default: Python's standard library.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a corpus of that name made of other text.")
    ] = False,
    inventory: InventoryOption = None,
    local: LocalOption = False,
) -> None:
    """Turn a folder of text into memory-mapped shards with checksums and a validation split.

    On a cluster the folder is one of the first node, and the corpus goes to the folder that all nodes share.

    Examples:

      kanctl train prepare

      kanctl train prepare --local --name notes --source ~/notes
    """
    from ..training.actions import prepare_corpus
    from ..training.place import means_local, open_place

    with open_place(inventory, local=means_local(inventory, local)) as place:
        prepare_corpus(place, name=name, source=source, replace=replace)


@app.command()
def launch(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a TOML file.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a value: train.steps=100.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the recipe's and the time.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Per node; default: one a GPU, else one.")
    ] = None,
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    local: LocalOption = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show progress until the run ends.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Verify recipe, nodes and corpus; start nothing.")] = False,
) -> None:
    """Start a run on every node; it goes on when this shell, the connection or this machine dies.

    Examples:

      kanctl train launch tiny

      kanctl train launch tiny --local --set train.steps=50 --follow
    """
    from ..training.actions import launch_recipe
    from ..training.follow import follow_run
    from ..training.place import open_place

    started = launch_recipe(
        recipe, overrides=overrides or [], inventory=inventory, limit=limit, local=local, name=name,
        processes=processes, check=check,
    )  # fmt: skip
    if started is None:
        print_note("all checks passed; nothing was started")
        return
    print_answer(started.run)
    if follow:
        with open_place(inventory, local=local) as place:
            follow_run(place, started.run)
    else:
        print_note(f"started; next: kanctl train status {started.run}{' --local' if local else ''}")


@app.command()
def resume(run: RunArgument = None, inventory: InventoryOption = None, local: LocalOption = False) -> None:
    """Start an ended run again from its last good checkpoint, on the same nodes.

    Examples:

      kanctl train resume

      kanctl train resume tiny-20260101-120000 --local
    """
    from ..training.actions import resume_run
    from ..training.place import means_local, open_place

    with open_place(inventory, local=means_local(inventory, local)) as place:
        print_answer(resume_run(place, run).run)


@app.command()
def status(
    run: RunArgument = None, inventory: InventoryOption = None, local: LocalOption = False, as_json: JsonOption = False
) -> None:
    """Show how far a run is, and what its unit is doing on each node.

    Examples:

      kanctl train status

      kanctl train status tiny-20260101-120000 --json
    """
    from ..training.follow import describe
    from ..training.place import means_local, open_place
    from ..training.runs import pick_run, read_status

    with open_place(inventory, local=means_local(inventory, local)) as place:
        found = read_status(place, pick_run(place, run))
    if as_json:
        print_json(asdict(found))
        return
    print_answer(describe(found))
    print_table(["node", "unit"], list(found.node_states.items()))


@app.command()
def logs(
    run: RunArgument = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines as they come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines of each node to show.")] = 20,
    inventory: InventoryOption = None,
    local: LocalOption = False,
) -> None:
    """Print the log of every node of a run, the node's name in front of each line.

    Examples:

      kanctl train logs -f

      kanctl train logs tiny-20260101-120000 --lines 200
    """
    from ..training.follow import log_lines
    from ..training.place import means_local, open_place
    from ..training.runs import pick_run

    with open_place(inventory, local=means_local(inventory, local)) as place:
        for line in log_lines(place, pick_run(place, run), lines=lines, follow=follow):
            print_answer(line)


@app.command()
def stop(run: RunArgument = None, inventory: InventoryOption = None, local: LocalOption = False) -> None:
    """End a run after it has written a checkpoint; `train resume` goes on from there.

    Examples:

      kanctl train stop

      kanctl train stop tiny-20260101-120000
    """
    from ..training.actions import stop_run
    from ..training.place import means_local, open_place

    with open_place(inventory, local=means_local(inventory, local)) as place:
        for node, state in stop_run(place, run).items():
            print_answer(f"{node}: {state}")


@app.command()
def evaluate(
    run: RunArgument = None,
    task: Annotated[list[Task] | None, typer.Option(help="What to measure; several can be given.")] = None,
    checkpoint: CheckpointOption = "last",
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Evaluate on this much text at most.")] = None,
    recall_length: Annotated[
        list[int] | None, typer.Option(min=128, max=65_536, help="Tokens of recall's sequences.")
    ] = None,
    problems: Annotated[str | None, typer.Option(help="File of programming problems, where the run is.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Programs written for each problem.")] = 10,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="Of the programs; 0.2 suits pass@1.")] = 0.2,
    max_problems: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    inventory: InventoryOption = None,
    local: LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what a run's model is worth, each figure beside what can be had without it.

    Examples:

      kanctl train evaluate

      kanctl train evaluate --task tokens --task recall --max-bytes 100000 --json
    """
    from ..training.ask import ask_module, option_words
    from ..training.evaluate import measure_rows
    from ..training.names import run_dir
    from ..training.place import means_local, open_place
    from ..training.runs import pick_run

    options: dict[str, object] = {"checkpoint": checkpoint, "task": task, "max-bytes": max_bytes}
    options |= {"recall-length": recall_length, "problems": problems, "samples": samples}
    options |= {"temperature": temperature, "max-problems": max_problems, "json": True}
    with open_place(inventory, local=means_local(inventory, local)) as place:
        words = ["--run-dir", run_dir(place.data_dir, pick_run(place, run)), *option_words(options)]
        result = ask_module(place, "evaluate", words)
    if as_json:
        print_json(result)
    else:
        print_table(["task", "measure", "value", "unit", "without the model", "count"], measure_rows(result))


@app.command()
def bench(
    what: Annotated[Bench, typer.Argument(help="All ops or one, decoding, or trainings.")],
    only: Annotated[str | None, typer.Option(help="Cases, or models, whose name has this in it.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Begin no measurement after so many minutes.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the results to this file too, as JSON.")] = None,
    inventory: InventoryOption = None,
    local: LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure on the first node, beside other ways to the same: ops, decoding, or training; what is wrong has no time.

    Examples:

      kanctl train bench model --minutes 10

      kanctl train bench edge --local --only "192 -> 768" --output edge.json
    """
    from ..training.actions import run_bench
    from ..training.bench import bench_table, failures

    found = run_bench(what, only, minutes, inventory=inventory, local=local)
    if output:
        output.write_text(json.dumps(found, indent=1) + "\n")
    if as_json:
        print_json(found)
    else:
        print_table(*bench_table(what, found))
    for line in failures(found):
        print_note(line)
    if found["failed"]:
        raise typer.Exit(1)


@app.command()
def explain(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a TOML file.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a value: model.width=512.")] = None,
    capability: Annotated[
        str | None, typer.Option(help="For a GPU of this compute capability, such as 9.0, not for what is there.")
    ] = None,
    inventory: InventoryOption = None,
    local: LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Explain which implementation of each layer runs on the first node, and why.

    Examples:

      kanctl train explain base

      kanctl train explain small --local --capability 9.0
    """
    from ..training.actions import explain_recipe
    from ..training.explain import explain_rows, where

    found = explain_recipe(recipe, overrides or [], capability, inventory=inventory, local=local)
    if as_json:
        print_json(found)
        return
    print_note(where(found))
    print_table(("layers", "part", "layer", "work", "implementation", "reason"), explain_rows(found))


@app.command()
def plot(
    run: RunArgument = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the pictures; default: <run>-plots.")] = None,
    edges: Annotated[int, typer.Option(min=1, max=64, help="How many of the strongest edges.")] = 6,
    formula: Annotated[bool, typer.Option("--formula", help="Fit a formula to each of these edges.")] = False,
    checkpoint: CheckpointOption = "last",
    inventory: InventoryOption = None,
    local: LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw a run's losses, strongest splines, experts' load and diffusion kernels, as PNG and SVG.

    Examples:

      kanctl train plot

      kanctl train plot tiny-20260101-120000 --formula --edges 4
    """
    from ..training.ask import ask_module, option_words
    from ..training.draw import draw_run, require_matplotlib
    from ..training.formulas import show_formulas
    from ..training.names import run_dir
    from ..training.place import means_local, open_place
    from ..training.runs import pick_run

    require_matplotlib()
    with open_place(inventory, local=means_local(inventory, local)) as place:
        name = pick_run(place, run)
        options = option_words({"edges": edges, "formula": formula, "checkpoint": checkpoint})
        found = ask_module(place, "inside", ["--run-dir", run_dir(place.data_dir, name), *options])
    paths = [str(path) for path in draw_run(found, output or Path(f"{name}-plots"))]
    if as_json:
        print_json({**found, "pictures": paths})
        return
    show_formulas(found)
    print_answer("\n".join(paths))


@app.command()
def finetune(
    train: Annotated[str, typer.Option(help="Tab-separated file to learn from, where the run is.")],
    validation: Annotated[str, typer.Option(help="The same kind of file, to measure on.")],
    run: RunArgument = None,
    text_column: Annotated[str, typer.Option(help="Name of the texts' column.")] = "sentence",
    label_column: Annotated[str, typer.Option(help="Name of the labels' column.")] = "label",
    name: Annotated[str | None, typer.Option(help="Name of the result; default: the training file's.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each text is seen.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps, instead of epochs.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts of one step.")] = 32,
    lr: Annotated[float, typer.Option(min=1e-9, max=1.0, help="Highest learning rate.")] = 1e-3,
    pooling: Annotated[
        Literal["mean", "last"], typer.Option(help="What the head reads: all of a text, or its last byte.")
    ] = "mean",
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head alone.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")] = 1,
    max_rows: Annotated[int | None, typer.Option(min=1, help="At most so many rows of each file.")] = None,
    no_fresh_baseline: Annotated[
        bool, typer.Option("--no-fresh-baseline", help="Leave out the same network tuned from fresh weights.")
    ] = False,
    checkpoint: CheckpointOption = "last",
    inventory: InventoryOption = None,
    local: LocalOption = False,
    check: Annotated[bool, typer.Option("--check", help="Read and verify all; train nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a run's model to sort texts into classes, and measure it beside three baselines.

    Examples:

      kanctl train finetune --train train.tsv --validation dev.tsv

      kanctl train finetune --local --train a.tsv --validation b.tsv --check
    """
    from ..training.ask import ask_module
    from ..training.finetune import finetune_words, show_finetune
    from ..training.place import means_local, open_place
    from ..training.runs import pick_run

    options: dict[str, object] = {"train": train, "validation": validation, "text-column": text_column}
    options |= {"label-column": label_column, "name": name, "epochs": epochs, "steps": steps, "batch": batch, "lr": lr}
    options |= {"pooling": pooling, "freeze": freeze, "seed": seed, "max-rows": max_rows, "checkpoint": checkpoint}
    options |= {"no-fresh-baseline": no_fresh_baseline, "check": check}
    with open_place(inventory, local=means_local(inventory, local)) as place:
        result = ask_module(place, "finetune", finetune_words(place, pick_run(place, run), options))
    if as_json:
        print_json(result)
    else:
        show_finetune(result)


@app.command()
def sample(
    run: RunArgument = None,
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "def ",
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Bytes to write.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="0 takes the likeliest byte.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, max=257, help="Draw from the k likeliest bytes; 0: from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest bytes that add up to p, up to 1.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    checkpoint: CheckpointOption = "last",
    inventory: InventoryOption = None,
    local: LocalOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write text with a run's model.

    Examples:

      kanctl train sample --prompt "import "

      kanctl train sample tiny-20260101-120000 --tokens 400 --temperature 0
    """
    from ..training.names import run_dir
    from ..training.place import means_local, open_place
    from ..training.runs import pick_run

    options: dict[str, object] = {"tokens": tokens, "temperature": temperature, "top-k": top_k, "top-p": top_p}
    options |= {"seed": seed, "checkpoint": checkpoint}
    with open_place(inventory, local=means_local(inventory, local)) as place:
        words = ["--run-dir", run_dir(place.data_dir, pick_run(place, run)), f"--prompt={prompt}"]
        words += [*(f"--{key}={value}" for key, value in options.items()), *(f"--stop={text}" for text in stop or ())]
        answer = place.run_module("sample", [*words, *(["--json"] if as_json else [])]).require()
    print_answer(answer.rstrip("\n"))
