"""The sweep of tiles up to the GPU: what it tries, how it judges, and what it says where there is none."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.bench import tiles
from kanctl.trainer.bench.timing import Cost

NOW = {"BN": 128, "BI": 64, "BO": 64, "num_warps": 8, "num_stages": 3}


def test_the_present_setting_comes_first_and_all_fit_the_registers() -> None:
    tried = list(tiles.settings(NOW))
    assert tried[0] == NOW
    assert 20 < len(tried) < 80
    assert all(each["BN"] * each["BO"] <= tiles.LARGEST_TILE for each in tried)
    assert all("ROWS" in each for each in tiles.settings({"ROWS": 4, "COLUMNS": 256, "num_warps": 4}))


def test_the_quickest_are_kept_beside_the_present_and_failures_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiles, "settings", lambda now: [{"BN": size} for size in (64, 16, 32, 128, 8)])
    slowness = {64: 9.0, 16: 1.0, 32: 2.0, 8: 3.0}
    last: list[int] = []

    def launch(setting: tiles.Tiles) -> Tensor:
        if setting["BN"] == 128:
            raise RuntimeError("out of resource: shared memory\nmore")
        last.append(setting["BN"])
        # One setting gives other values.
        return torch.full((4,), 2.0 if setting["BN"] == 32 else 1.0)

    def cost(run: object) -> Cost:
        return Cost(ms=slowness[last[-1]], peak_mb=None)

    monkeypatch.setattr(tiles, "measure", cost)
    found = tiles.sweep("forward", launch, {"BN": 64}, keep=2)
    assert [row["BN"] for row in found] == [16, 32, 64]
    assert [row["is_present"] for row in found] == [False, False, True]
    assert found[1]["error"] == 1.0
    assert "error" not in found[0]
    assert "out of resource: shared memory" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiles.main([]) == 5
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
