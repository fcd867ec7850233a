"""The bench of the edge layer at small sizes on a CPU: every way is right, a wrong one has no time, runs go on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kanctl.trainer.bench import edge
from kanctl.trainer.bench.edge_rivals import SAME_FUNCTION
from kanctl.trainer.bench.timing import measure

SMALL = [edge.Case(tokens=40, inputs=6, outputs=5), edge.Case(tokens=40, inputs=6, outputs=5, cells=13, graph=True)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CASES", SMALL)
    monkeypatch.setattr("kanctl.trainer.bench.timing.SECONDS", 0.0)


def run(out: Path, *words: str) -> dict[str, Any]:
    return edge.bench(edge.parse_arguments(["--out", str(out), "--commit", "abc", *words]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has more ways on a GPU")
def test_every_way_is_measured_and_ours_are_right(tmp_path: Path) -> None:
    document = run(tmp_path / "results.json")
    assert document["failed"] == []
    assert {row["way"] for row in document["rows"]} == {"gemm", "ours", "closed form", "Cox-de Boor", "Gaussian"}
    checked = [row for row in document["rows"] if row["way"] in {"ours", *SAME_FUNCTION}]
    assert len(checked) == 3 * len(SMALL)
    assert all(0 < max(row["errors"].values()) < 1e-6 for row in checked)
    assert all(row["forward_ms"] > 0 and row["both_ms"] > 0 for row in document["rows"])
    shown = edge.table(document)
    assert "| 6 -> 5, G = 13, CUDA graph | ours |" in shown
    assert "(1.00x)" in shown


def test_a_way_that_is_wrong_has_no_time_but_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: Tensor, weight: Tensor, grid: edge.SplineGrid) -> Tensor:
        return edge_linear(x, weight, grid) * 1.001

    edge_linear = edge.edge_linear
    monkeypatch.setattr(edge, "edge_linear", wrong)
    document = run(tmp_path / "results.json")
    assert {failure["way"] for failure in document["failed"]} == {"ours"}
    assert "wanted errors of at most 1e-05, found {'y': 0.00" in document["failed"][0]["error"]
    assert "ours" not in {row["way"] for row in document["rows"]}


def test_nan_is_an_error_too() -> None:
    layer = edge.make_layer(SMALL[0], "cpu", torch.float32)
    errors = edge.check(lambda x, weight: edge.edge_linear(x, weight, layer.grid) * float("nan"), layer)
    assert not max(errors.values()) <= 1.0


def test_a_cut_run_goes_on_and_another_plan_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    run(out, "--minutes", "0")
    first = json.loads(out.read_text()) if out.exists() else {"rows": []}
    whole = run(out)
    assert len(whole["rows"]) == 5 * len(SMALL)
    assert whole["rows"][: len(first["rows"])] == first["rows"]
    with pytest.raises(SystemExit, match="results of another device or plan"):
        run(out, "--tokens", "20")


def test_a_measure_is_the_median_of_several_runs() -> None:
    runs: list[int] = []
    cost = measure(lambda: runs.append(1))
    assert len(runs) >= 5
    assert cost.ms >= 0
