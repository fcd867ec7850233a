"""Experts' load and kernels, counted and read."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kanctl.trainer.inside.mixing import diffusion_kernels, expert_load
from kanctl.trainer.model import KanLM


def test_every_choice_of_a_grove_is_counted_once(make_model: Callable[..., KanLM], tokens_WT: Tensor) -> None:
    model = make_model("grove")
    with torch.no_grad():
        loads = expert_load(model, lambda: model(tokens_WT[:, :-1]))
    assert [load["layer"] for load in loads] == ["blocks.0.channel", "blocks.1.channel"]
    for load in loads:
        assert sum(load["shares"]) == pytest.approx(1, abs=1e-4)  # type: ignore[call-overload]
        assert load["even_share"] == 1 / 8
        # With two of eight active no expert can have more than half.
        assert max(load["shares"]) <= 0.5  # type: ignore[call-overload]


def test_offsets_that_favour_two_experts_show(make_model: Callable[..., KanLM], tokens_WT: Tensor) -> None:
    model = make_model("grove")
    grove = model.get_submodule("blocks.0.channel")
    grove.balance_ticks_E[torch.tensor([3, 6])] = 10**9  # type: ignore[index, operator]
    with torch.no_grad():
        first, _ = expert_load(model, lambda: model(tokens_WT[:, :-1]))
    assert first["shares"] == [0, 0, 0, 0.5, 0, 0, 0.5, 0]


def test_kernels_are_read_head_by_head_and_start_where_training_started(make_model: Callable[..., KanLM]) -> None:
    model = make_model("ada")
    with torch.no_grad():
        model.get_submodule("blocks.0.mixer").tap_logits_HCW[1] = torch.tensor([0.0, 0.0, 0.0, 99.0])  # type: ignore[index, operator]
    first = diffusion_kernels(model)[0]
    assert first["layer"] == "blocks.0.mixer"
    untouched, last_tap = first["heads"]  # type: ignore[misc]
    assert untouched["mean"] == pytest.approx(first["start"])
    assert last_tap["mean"] == last_tap["low"] == last_tap["high"] == pytest.approx([0, 0, 0, 1])
    assert sum(first["start"]) == pytest.approx(1, abs=1e-5)  # type: ignore[call-overload]


def test_models_without_them_have_none(make_model: Callable[..., KanLM], tokens_WT: Tensor) -> None:
    model = make_model("gpt")
    assert diffusion_kernels(model) == []
    assert expert_load(model, lambda: model(tokens_WT[:, :-1])) == []
