"""`kanctl train finetune`: the module's words, and its document as tables."""

from collections.abc import Mapping
from typing import Any

from ..output import print_answer, print_table
from .ask import option_words
from .names import check_name, run_dir
from .place import Place


def finetune_words(place: Place, run: str, options: Mapping[str, object]) -> list[str]:
    """The arguments of the finetune module. Raises BadInputError for a name that is none."""
    if options.get("name") is not None:
        check_name("finetune", str(options["name"]))
    return ["--run-dir", run_dir(place.data_dir, run), "--json", *option_words(options)]


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
