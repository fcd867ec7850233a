"""The model benchmark: equal parameters, results that are gone on from, a table that compares as it says."""

import json

import pytest

from kanctl.trainer.bench.document import loss_at
from kanctl.trainer.bench.model import CPU_PLAN, GPU_PLAN, best_rows, cells, main
from kanctl.trainer.bench.training import CPU_LIBRARY_BYTES, LIBRARY_BYTES, library_text
from kanctl.trainer.bench.variants import BASELINE, fit_hidden, variants
from kanctl.trainer.cost import model_cost


@pytest.mark.parametrize("name", variants())
def test_each_variant_has_the_baselines_parameters(name: str) -> None:
    ratio = model_cost(variants()[name]).parameters / model_cost(BASELINE).parameters
    assert 0.95 < ratio < 1.05


def test_a_fitted_width_is_a_multiple_of_the_group() -> None:
    assert fit_hidden(variants()["cyclic"], 500_000).hidden % 4 == 0


@pytest.fixture
def words(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question. " * 200)
    return [
        *("--text", str(text), "--out", str(tmp_path / "out.json"), "--steps", "2", "--eval-every", "1"),
        *("--sequences", "1", "--rates", "1e-3", "--commit", "c0ffee"),
    ]  # fmt: skip


def test_what_is_done_is_not_done_again(words, tmp_path, capsys) -> None:
    assert main([*words, "--only", "gpt"]) == 0
    first = json.loads((tmp_path / "out.json").read_text())
    assert [each["step"] for each in first["rows"][0]["evals"]] == [1, 2]
    assert first["commit"] == "c0ffee"
    main([*words, "--only", "gpt", "kan"])
    again = json.loads((tmp_path / "out.json").read_text())
    assert [row["variant"] for row in again["rows"]] == ["gpt", "kan"]
    assert again["rows"][0] == first["rows"][0]
    assert "| kan | 0.89 M (0.89 M) | 0.001 |" in capsys.readouterr().out


def test_results_of_another_plan_are_not_mixed(words) -> None:
    main([*words, "--only", "gpt"])
    with pytest.raises(SystemExit, match="another device or plan"):
        main([*words, "--only", "gpt", "--seed", "2"])


def row(variant: str, lr: float, losses: list[float], seconds: float) -> dict:
    evals = [
        {"step": 10 * (n + 1), "seconds": seconds * (n + 1), "val_loss_nats": loss} for n, loss in enumerate(losses)
    ]
    counts = {"parameters": 1, "active_parameters": 1, "tokens_per_s": 1 / seconds, "peak_memory_mib": 0.0}
    return {"variant": variant, "lr": lr, "evals": evals, "is_graph": False, **counts}


def test_the_rate_with_the_lowest_loss_counts_and_equal_time_is_the_baselines() -> None:
    rows = [row("kan", 1e-3, [3.0, 2.0], 2.0), row("gpt", 1e-3, [3.0, 2.5], 1.0), row("gpt", 2e-3, [2.2, 2.4], 1.0)]
    best = best_rows({"rows": rows})
    assert [(each["variant"], each["lr"]) for each in best] == [("gpt", 2e-3), ("kan", 1e-3)]
    assert loss_at(rows[0], "seconds", 2.0) == 3.0
    assert loss_at(rows[0], "seconds", 1.9) is None
    assert cells({"rows": rows})[1][3:6] == ("2.000", "2.000", "3.000")


def test_without_a_text_it_is_pythons_library_and_without_a_gpu_the_plan_is_small(capsys) -> None:
    words = ["--steps", "1", "--sequences", "1", "--rates", "1e-3", "--only", "gpt", "kan", "--matching", "pt"]
    assert main([*words, "--eval-every", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["text"].startswith("standard library of Python 3.")
    assert [row["variant"] for row in document["rows"]] == ["gpt"]
    assert CPU_PLAN["steps"] < GPU_PLAN["steps"]


def test_a_name_that_no_variant_has_is_refused_with_those_there_are(capsys) -> None:
    assert main(["--matching", "nothing"]) == 2
    assert "--matching: wanted a part of one of gpt; kan; " in capsys.readouterr().err


def test_the_librarys_text_is_whole_files_and_the_same_twice() -> None:
    text = library_text(LIBRARY_BYTES)
    assert 0.9 * LIBRARY_BYTES < len(text) <= LIBRARY_BYTES
    assert text == library_text(LIBRARY_BYTES)
    assert text.startswith(library_text(CPU_LIBRARY_BYTES))
