"""Replaced edges change the loss by what they should: by nothing, or by what the weights themselves would."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kanctl.trainer.checkpoint import save_checkpoint
from kanctl.trainer.config import RunConfig, apply_overrides
from kanctl.trainer.inside.__main__ import main
from kanctl.trainer.inside.edges import strongest_edges
from kanctl.trainer.inside.look import Look
from kanctl.trainer.inside.replace import replaced
from kanctl.trainer.model import KanLM


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [("kan", ()), ("factors", ("model.channel=kan", "model.factor_rank=4")), ("kan", ("model.reversible=true",))],
)
def test_an_edge_replaced_by_its_own_curve_changes_nothing_and_by_zero_what_its_weights_at_zero_do(
    make_model: Callable[..., KanLM], tokens_WT: Tensor, recipe: str, changes: tuple[str, ...]
) -> None:
    model = make_model(recipe, *changes)
    look = Look(model, tokens_WT)
    curves = strongest_edges(model, look.loss_nats, 4)
    before = look.loss_nats()
    with replaced(model, [(curve, curve.value) for curve in curves]):
        assert look.loss_nats() == pytest.approx(before, abs=1e-6)
    with replaced(model, [(curve, torch.zeros_like) for curve in curves]):
        without = look.loss_nats()
    assert without != before
    assert look.loss_nats() == before
    if recipe == "kan":
        with torch.no_grad():
            for curve in curves:
                model.get_submodule(curve.edge.layer).weight_JIO[:, curve.edge.input, curve.edge.output] = 0  # type: ignore[index, operator]
        assert look.loss_nats() == pytest.approx(without, abs=1e-6)


def test_formulas_say_what_they_cost_beside_what_nothing_costs(
    make_model: Callable[..., KanLM], tokens_WT: Tensor
) -> None:
    model = make_model("kan")
    look = Look(model, tokens_WT)
    said: list[str] = []
    found: dict[str, Any] = look.formulas(strongest_edges(model, look.loss_nats, 2), said.append)
    assert len(found["edges"]) == len(said) == 2
    assert found["val_loss_nats"] == pytest.approx(look.loss_nats(), rel=1e-4)
    for row in found["edges"]:
        assert row["r2"] > 0.9
        assert abs(row["val_loss_change_nats"]) < abs(row["val_loss_change_without_nats"])


@pytest.fixture
def run_dir(tmp_path: Path, corpus_dir: Path, micro_config: RunConfig, make_engine: Any) -> Path:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "stdlib").symlink_to(corpus_dir)
    folder = tmp_path / "runs" / "looked-at"
    config = apply_overrides(micro_config, ["model.mixers=['ada']"])
    save_checkpoint(make_engine(config), folder, config, 4)
    return folder


def test_the_answer_is_one_document_of_numbers(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(run_dir), "--edges", "3", "--formula"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert shown.out.count("\n") == 1
    assert (found["run"], found["checkpoint_step"]) == ("looked-at", 4)
    assert len(found["edges"]) == len(found["formulas"]["edges"]) == 3
    assert len(found["kernels"]) == 1
    assert found["experts"] == []
    assert found["loss"] == {"train": [], "validation": []}
    assert "formula 3 of 3" in shown.err


def test_a_checkpoint_that_is_not_there_is_bad_input(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(run_dir), "--checkpoint", "7"]) == 2
    assert "steps there: 4" in capsys.readouterr().err


def test_no_edges_and_too_many_are_refused(run_dir: Path) -> None:
    for count in ("0", "65", "x"):
        with pytest.raises(SystemExit):
            main(["--run-dir", str(run_dir), "--edges", count])
