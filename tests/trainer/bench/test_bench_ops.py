"""The bench of the ops at small sizes on a CPU: every way is right, a wrong one has no time, cut runs go on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kanctl.trainer.bench import ada, decode, edge, grove, kalman, mra, ops, step, timing
from kanctl.trainer.bench.document import fill
from kanctl.trainer.bench.edge_rivals import SAME_FUNCTION
from kanctl.trainer.bench.group import Ceilings, Work, require_right
from kanctl.trainer.cost import model_cost

EDGES = [edge.Case(tokens=40, inputs=6, outputs=5), edge.Case(tokens=40, inputs=6, outputs=5, cells=13, graph=True)]
ATTENTION = [ada.Case(tokens=96, length=48, heads=2), ada.Case(tokens=96, length=96, heads=2)]
GROVES = [grove.Case(tokens=50, width=16, hidden=8, experts=4, active=active) for active in (1, 2)]

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has more ways on a GPU; kanctl train bench ops")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        "edge": EDGES,
        "grove": GROVES,
        "ada": ATTENTION,
        "mra": [mra.Case(tokens=96, length=48, heads=2, window=5)],
        "kalman": [kalman.Case(tokens=96, length=48, channels=3)],
        "step": [step.Case(tokens=96)],
    }
    groups = {name: replace(ops.GROUPS[name], cases=cases[name]) for name in cases}
    long_text = decode.Case(layers=4, width=16, heads=2, hidden=48, tokens=96)
    monkeypatch.setattr(ops, "GROUPS", {**groups, "decode": replace(decode.GROUP, cpu_cases=[long_text])})
    monkeypatch.setattr(decode, "STEPS", 16)
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    monkeypatch.setattr(timing, "LEAST", 1)
    monkeypatch.setattr(step, "LENGTH", 16)


def run(*words: str) -> dict[str, Any]:
    return ops.bench(ops.parse_arguments(["--commit", "abc", "--tokens", "96", *words]))


def test_every_way_is_measured_and_ours_are_right() -> None:
    document = run()
    assert document["failed"] == []
    assert document["baselines"] == {
        "edge": "gemm", "grove": "dense", "ada": "softmax attention", "mra": "softmax attention",
        "kalman": "cumulative sum", "step": "GPT, 16 layers",
    }  # fmt: skip
    ways = {(row["op"], row["way"]) for row in document["rows"]}
    assert ways == {("edge", way) for way in ("gemm", "ours", "closed form", "Cox-de Boor", "Gaussian")} | {
        ("ada", way) for way in ("softmax attention", "linear attention", "ours")
    } | {("step", way) for way in step.MODELS} | {("grove", way) for way in ("dense", "ours", "gemm")} | {
        *(("mra", way) for way in ("softmax attention", "ours")),
        *(("kalman", way) for way in ("cumulative sum", "ours", "plain PyTorch")),
    }
    checked = [row for row in document["rows"] if row["way"] in {"ours", *SAME_FUNCTION}]
    assert len(checked) == 3 * len(EDGES) + len(GROVES) + len(ATTENTION) + 2
    assert all(0 < max(row["errors"].values()) < 1e-6 for row in checked)
    assert all(row["forward_ms"] > 0 and row["both_ms"] > 0 for row in document["rows"])
    assert set(checked[-3]["errors"]) == {"o", "dq", "dk", "dv", "dtaps", "ddecay"}
    assert set(checked[-1]["errors"]) == {"estimate", "dobserved", "dnoise", "ddrift"}
    [whole_model] = [row for row in document["rows"] if row["op"] == "step" and row["way"].startswith("ours")]
    assert 0 <= whole_model["errors"]["loss"] < 1e-6


def test_a_limit_is_the_slower_of_arithmetic_and_memory() -> None:
    ceilings = Ceilings(flops_per_s=1e12, bytes_per_s=1e9)
    row = ceilings.limit(Work(forward_flops=3e9, both_flops=9e9, forward_bytes=1e6, both_bytes=2e7))
    assert row["forward_ms"] == pytest.approx(3)
    assert row["both_ms"] == pytest.approx(20)
    assert ceilings.limit(Work(forward_bytes=1e6))["both_ms"] is None


def test_sparse_tensor_cores_take_half_the_steps_of_eight_of_nine_features() -> None:
    layer = edge.Case(tokens=16384, inputs=4096, outputs=4096)
    product = 2 * 16384 * 4096 * 4096
    assert edge.work(layer).forward_flops == 5 * product
    assert edge.work(layer).both_flops == (5 + 2 * 9) * product
    assert edge.work(replace(layer, cells=13)).forward_flops == 17 * product
    # The dense pair of all subnets is one such layer there and one back; one of 16 does a sixteenth.
    grove_case = grove.Case(tokens=16384, width=4096, hidden=256, experts=16, active=1)
    assert grove.work(grove_case).both_flops == 2 * edge.work(layer).both_flops / 16
    assert all(group.work is not None for name, group in ops.GROUPS.items() if name != "decode")


def test_a_way_that_is_wrong_has_no_time_but_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    right_layer, right_attention = edge.edge_linear, ada.ada

    def wrong_layer(x: Tensor, weight: Tensor, grid: edge.SplineGrid) -> Tensor:
        return right_layer(x, weight, grid) * 1.001

    def wrong_attention(*inputs: Any) -> tuple[Tensor, None]:
        return right_attention(*inputs)[0] * 1.001, None

    monkeypatch.setattr(edge, "edge_linear", wrong_layer)
    monkeypatch.setattr(ada, "ada", wrong_attention)
    for module, name in ((grove, "grove_reference"), (mra, "multi_resolution_reference"), (kalman, "kalman_reference")):
        right = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *inputs, right=right: right(*inputs) * 1.001)
    document = run()
    wrong = {(failure["op"], failure["way"]) for failure in document["failed"]}
    assert wrong == {(op, "ours") for op in ("edge", "grove", "ada", "mra", "kalman")}
    assert "wanted errors of at most 1e-05, found y 1.0e-03" in document["failed"][0]["error"]
    assert "ours" not in {row["way"] for row in document["rows"]}


def test_nan_is_an_error_too() -> None:
    with pytest.raises(RuntimeError, match="found y nan"):
        require_right({"y": float("nan")}, torch.float32)
    require_right({"y": 1e-6}, torch.float32)
    require_right({"y": 2e-5}, torch.float32, ops=3)


def test_a_cut_run_goes_on_and_another_plan_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    words = ("--out", str(out), "--groups", "edge")
    run(*words, "--only", "G = 13")
    first = json.loads(out.read_text())["rows"]
    assert {row["case"] for row in first} == {EDGES[1].name}
    whole = run(*words)
    assert len(whole["rows"]) == 5 * len(EDGES)
    assert whole["rows"][: len(first)] == first
    with pytest.raises(SystemExit, match="results of another device or plan"):
        run(*words, "--tokens", "20")


def test_without_a_gpu_there_are_few_tokens_and_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert ops.main(["--only", "no such case"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "no GPU here: smaller cases than a GPU's" in said.err
    assert "--only: wanted a part of one of 1 of 4, 16 -> 8 -> 16 each; 16 x 16 characters; " in said.err
    assert "found 'no such case'" in said.err
    assert [case.tokens for case in ops.cases_of(edge.GROUP, "cpu", None)] == [ops.CPU_TOKENS] * len(edge.CASES)
    assert [case.tokens for case in ops.cases_of(edge.GROUP, "cuda", 7)] == [7] * len(edge.CASES)
    assert ops.cases_of(decode.GROUP, "cpu", None) == decode.CPU_CASES


def test_a_measure_is_the_median_of_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST", 5)
    runs: list[int] = []
    cost = timing.measure(lambda: runs.append(1))
    # And one to warm up.
    assert len(runs) == 6
    assert cost.ms >= 0
    assert cost.peak_mb is None


def test_the_cuda_kernels_have_no_row_where_they_do_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {case.name: case for case in edge.CASES}
    five, thirteen = cases["4096 -> 4096, G = 5"], cases["1024 -> 4096, G = 13"]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert all(edge.GROUP.serves(five, way) for way in edge.names("cuda"))
    missing = [way for way in edge.names("cuda") if not edge.GROUP.serves(thirteen, way)]
    assert missing == ["ours: cuda", "ours: cuda, the weight's gradient by slabs"]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert not edge.GROUP.serves(five, "ours: cuda")


@pytest.mark.parametrize("mistake", [RuntimeError("does not fit"), AssertionError("other strides than told")])
def test_a_way_that_does_not_run_leaves_the_others_their_turn(mistake: Exception) -> None:
    found: dict[str, Any] = {"rows": [], "failed": []}

    def run(job: str) -> dict[str, Any]:
        if job == "wrong":
            raise mistake
        return {"forward_ms": 1.0}

    fill(None, found, [({"way": name}, name) for name in ("wrong", "right")], run, 1.0)
    assert found == {"rows": [{"way": "right", "forward_ms": 1.0}], "failed": [{"way": "wrong", "error": str(mistake)}]}


def test_a_baseline_is_timed_in_turn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST", 2)
    monkeypatch.setattr(timing, "BLOCKS", 2)
    runs: list[str] = []
    cost = timing.measure(lambda: runs.append("own"), baseline=lambda: runs.append("baseline"))
    # Each block with a run to warm up.
    assert runs == (["own"] * 3 + ["baseline"] * 3) * 2
    assert cost.baseline_ms is not None
    runs.clear()
    x = torch.ones(3, requires_grad=True)
    baseline = timing.Runs(lambda: runs.append("forward"), lambda: runs.append("both"))
    row = timing.measure_gradients(lambda: x * 2, [x], torch.ones(3), baseline=baseline)
    assert {"baseline_forward_ms", "baseline_both_ms"} <= set(row)
    assert runs == ["forward"] * 6 + ["both"] * 6


def test_decoding_is_measured_when_it_is_asked_for_and_ours_reads_less() -> None:
    document = run("--groups", "decode")
    assert document["failed"] == []
    assert [row["way"] for row in document["rows"]] == list(decode.WAYS)
    by_way = {row["way"]: row for row in document["rows"]}
    assert all(0 < row["errors"]["logits"] < 1e-5 and row["forward_ms"] > 0 for row in by_way.values())
    # A GPT reads keys and values of 80 tokens in a cache of 128 slots, and all its weights.
    cache = 4 * 2 * 128 * 16 * 4 + 8
    assert by_way["GPT"]["read_mb"] == (by_way["GPT"]["parameters"] * 4 + cache) / 1e6


def test_models_of_decoding_have_as_many_parameters_as_the_gpt() -> None:
    for case in decode.CASES:
        wanted = model_cost(decode.config_of(case, "GPT")).parameters
        for name in decode.WAYS:
            config = decode.config_of(case, name)
            cost = model_cost(config)
            assert abs(cost.parameters / wanted - 1) < 0.01
            assert (cost.active_parameters < 0.5 * wanted) == (config.channel == "grove-kan")
            assert config.hidden % 16 == 0


def test_a_step_that_gives_other_logits_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    right = decode.Steps.__call__
    monkeypatch.setattr(decode.Steps, "__call__", lambda steps, token_B: right(steps, token_B) * 1.001)
    document = run("--groups", "decode")
    assert document["rows"] == []
    assert "found logits 1.0e-03" in document["failed"][0]["error"]
