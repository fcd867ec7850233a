"""`kanctl train finetune`: the words that its module gets, and what is shown of its answer."""

from typing import Any

import pytest

from kanctl.cli.training.finetune import finetune_words, show_finetune
from kanctl.errors import BadInputError

RESULT: dict[str, Any] = {
    "run": "tiny-1",
    "checkpoint_step": 250,
    "finetune": "finetunes/sst2",
    "train_count": 90,
    "validation_count": 40,
    "validation_seen_count": 0,
    "cut_count": 3,
    "text_bytes_max": 127,
    "classes": [{"label": "calm", "train_count": 30, "validation_count": 11}],
}
MEASURE = {
    "name": "accuracy",
    "value": 0.7,
    "standard_error": 0.01,
    "baselines": {"commonest class": 0.6, "other": 0.65},
}


class Elsewhere:
    """A place that has a data folder and nothing else."""

    data_dir = "/data"


def test_options_without_a_value_are_left_out() -> None:
    options = {"train": "-a b.tsv", "name": None, "steps": None, "freeze": True, "check": False, "lr": 1e-3}
    assert finetune_words(Elsewhere(), "tiny-1", options) == [  # type: ignore[arg-type]
        "--run-dir", "/data/runs/tiny-1", "--json", "--train=-a b.tsv", "--freeze", "--lr=0.001",
    ]  # fmt: skip


def test_a_name_that_is_no_folder_name_is_refused_before_any_node_is_asked() -> None:
    with pytest.raises(BadInputError, match="wanted 1 to 63 lower-case letters"):
        finetune_words(Elsewhere(), "tiny-1", {"name": "../x"})  # type: ignore[arg-type]


def test_no_figure_is_shown_without_its_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    show_finetune({**RESULT, "measures": [MEASURE]})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny-1 at step 250: 90 training rows, 40 validation rows; 3 texts cut to 127 bytes"
    rows = [line.split() for line in lines if "0.7000" in line]
    assert [row[-1] for row in rows] == ["0.6000", "0.6500"]
    assert lines[-1] == "kept in tiny-1/finetunes/sst2"


def test_a_check_shows_the_classes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_finetune(RESULT)
    out = capsys.readouterr().out
    assert "calm" in out
    assert "accuracy" not in out
    assert "kept" not in out
