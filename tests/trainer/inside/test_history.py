"""Loss curves as a run told them, whatever kills and resumes left in the file."""

from pathlib import Path

from kanctl.trainer.inside.history import loss_history

LINES = """\
{"kind": "train", "step": 10, "loss_nats": 5.0}
{"kind": "eval", "step": 10, "val_loss_nats": 4.5}
{"kind": "train", "step": 20, "loss_nats": 4.0}
{"kind": "train", "st
{"kind": "train", "step": 10, "loss_nats": 5.5}
[1]
{"kind": "end", "step": 20, "reason": "finished"}
"""


def test_of_a_step_told_twice_the_later_counts_and_torn_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(LINES)
    assert loss_history(tmp_path) == {
        "train": [{"step": 10, "loss_nats": 5.5}, {"step": 20, "loss_nats": 4.0}],
        "validation": [{"step": 10, "loss_nats": 4.5}],
    }


def test_a_run_that_has_told_nothing_has_empty_curves(tmp_path: Path) -> None:
    assert loss_history(tmp_path) == {"train": [], "validation": []}
