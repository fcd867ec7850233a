"""The comparison of optimisers: what is swept, what counts as best, and what it says of steps and seconds."""

import json
from pathlib import Path
from typing import Any

import pytest

from kanctl.trainer.bench import optim as bench_optim
from kanctl.trainer.bench.optim import SWEEP, best_of_kinds, comparison, main, settings
from kanctl.trainer.config import OptimConfig


def test_every_setting_of_the_sweep_is_a_config_and_differs_from_the_others() -> None:
    every = settings(list(SWEEP))
    assert len({tuple(sorted(setting.items())) for setting in every}) == len(every)
    for setting in every:
        OptimConfig(**setting, warmup_steps=1)


def row(kind: str, losses: list[float], seconds: float, **other: float) -> dict[str, Any]:
    evals = [
        {"step": 10 * (place + 1), "seconds": seconds * (place + 1), "val_loss_nats": loss}
        for place, loss in enumerate(losses)
    ]
    return {"kind": kind, **{key: values[0] for key, values in SWEEP[kind].items()}, **other, "evals": evals}


def test_the_last_loss_decides_and_others_are_held_to_adamws() -> None:
    document = {
        "rows": [
            row("adamw", [3.0, 1.0, 2.0], 1.0),
            row("adamw", [3.0, 2.0, 1.5], 1.0, lr_peak=4e-3),
            row("kalman", [2.0, 1.4, 1.3], 2.0),
            row("muon", [3.0, 3.0, 3.0], 1.5),
        ]
    }
    assert best_of_kinds(document)["adamw"]["lr_peak"] == 4e-3
    lines = {line.split(" | ")[0].strip("| "): line for line in comparison(document).splitlines()[2:]}
    assert "| 2.00 | 20 | 4.0 | 3.0 |" in lines["kalman"]
    assert "| never | never |" in lines["muon"]


def test_a_sweep_is_cut_to_what_was_asked_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"to be or not to be " * 400)
    model = bench_optim.load_recipe("gpt").model
    small = type(model)(layers=1, width=16, heads=2, context_tokens=32, hidden=8, mixers=("softmax",), channel="mlp")
    monkeypatch.setattr(bench_optim, "load_recipe", lambda name: type("Recipe", (), {"model": small}))
    words = ["--text", str(text), "--out", str(tmp_path / "o.json"), "--steps", "4", "--sequences", "2"]
    words += ["--eval-every", "2", "--set", "lr_peak=0.004", "weight_decay=0.1", "refresh_steps=10", "damping=0.5"]
    assert main([*words, "--only", "adamw", "kalman"]) == 0
    rows = json.loads((tmp_path / "o.json").read_text())["rows"]
    assert [(each["kind"], each["lr_peak"]) for each in rows] == [("adamw", 4e-3), ("adamw", 4e-3), ("kalman", 4e-3)]
    capsys.readouterr()
    assert main([*words, "--only", "adamw", "kalman"]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["rows"] == rows
    assert "validation" not in capsys.readouterr().err
    other = [word.replace("o.json", "seed.json") for word in words]
    assert main([*other, "--seed", "2", "--best-of", str(tmp_path / "o.json")]) == 0
    assert len(json.loads((tmp_path / "seed.json").read_text())["rows"]) == 2
