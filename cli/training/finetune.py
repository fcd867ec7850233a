"""`kanctl train finetune`: the module's words, its progress as notes, and its one document as tables."""

import json
from collections.abc import Mapping
from typing import Any

from kanctl.errors import KanctlError

from ..output import print_answer, print_note, print_table
from .names import check_name, run_dir
from .place import Place


def finetune_words(place: Place, run: str, options: Mapping[str, object]) -> list[str]:
    """The arguments of the finetune module: options without a value (None, False) are left out, a True has none."""
    if options.get("name") is not None:
        check_name("finetune", str(options["name"]))
    words = ["--run-dir", run_dir(place.data_dir, run), "--json"]
    for key, value in options.items():
        if value is True:
            words.append(f"--{key}")
        elif value is not None and value is not False:
            words.append(f"--{key}={value}")
    return words


def run_finetune(place: Place, words: list[str]) -> dict[str, Any]:
    """The module's document; every other line that it says is a note. Raises KanctlError when it ends without one."""
    result = None
    for line in place.stream_module("finetune", words):
        if line.startswith("{"):
            result = json.loads(line)
        else:
            print_note(line)
    if result is None:
        raise KanctlError(f"finetune on {place.name} ended without an answer", "run it again; its words are above")
    return dict(result)


def show_finetune(result: Mapping[str, Any]) -> None:
    """What was tuned on, and the accuracy beside each baseline; of a check, the first alone."""
    cut = f"; {result['cut_count']} texts cut to {result['text_bytes_max']} bytes" if result["cut_count"] else ""
    seen = f"; {result['validation_seen_count']} validation texts are training texts too"
    print_answer(
        f"{result['run']} at step {result['checkpoint_step']}: {result['train_count']} training rows, "
        f"{result['validation_count']} validation rows{cut}{seen if result['validation_seen_count'] else ''}"
    )
    classes = [(c["label"], str(c["train_count"]), str(c["validation_count"])) for c in result["classes"]]
    print_table(["class", "training rows", "validation rows"], classes)
    if "measures" in result:
        rows = [
            (m["name"], f"{m['value']:.4f} +- {m['standard_error']:.4f}", baseline, f"{value:.4f}")
            for m in result["measures"]
            for baseline, value in m["baselines"].items()
        ]
        print_table(["measure", "tuned", "baseline", "its value"], rows)
        print_answer(f"kept in {result['run']}/{result['finetune']}")
