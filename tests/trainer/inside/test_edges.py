"""What is said of an edge is what its layer computes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kanctl.trainer.inside.edges import edge_layers, strongest_edges, whole_weight
from kanctl.trainer.model import KanLM
from kanctl.trainer.model.edge import NORM_EPSILON
from kanctl.trainer.ops.bspline import edge_linear

RECIPES = [("kan", ()), ("factors", ("model.channel=kan", "model.factor_rank=4")), ("cyclic", ("model.channel=kan",))]


@pytest.mark.parametrize(("recipe", "changes"), RECIPES)
def test_the_whole_weight_of_any_edge_layer_gives_its_outputs(
    make_model: Callable[..., KanLM], recipe: str, changes: tuple[str, ...]
) -> None:
    layers = edge_layers(make_model(recipe, *changes))
    assert len(layers) == 4
    for layer in layers.values():
        weight_JIO = whole_weight(layer)
        x_NI = torch.randn(5, weight_JIO.shape[1])
        normed_NI = F.rms_norm(x_NI, x_NI.shape[-1:], eps=NORM_EPSILON)
        torch.testing.assert_close(edge_linear(normed_NI, weight_JIO, layer.grid), layer(x_NI), atol=1e-5, rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(("recipe", "changes"), RECIPES)
def test_an_edges_curve_is_its_share_of_the_layers_output(
    make_model: Callable[..., KanLM], tokens_WT: Tensor, recipe: str, changes: tuple[str, ...]
) -> None:
    model = make_model(recipe, *changes)
    seen: list[Tensor] = []
    [name, *_] = edge_layers(model)
    model.get_submodule(name).register_forward_hook(lambda _, args, out: seen.append(args[0].flatten(0, -2)))
    curves = strongest_edges(model, lambda: model(tokens_WT[:, :-1]), 10_000)
    # The layer's outputs are sums over its inputs, one curve each.
    mine = [curve for curve in curves if curve.edge.layer == name and curve.edge.output == 3]
    assert len(mine) == 16
    normed_NI = F.rms_norm(seen[0], seen[0].shape[-1:], eps=NORM_EPSILON)
    summed_N = sum(curve.value(normed_NI[:, curve.edge.input]) for curve in mine)
    torch.testing.assert_close(summed_N, model.get_submodule(name)(seen[0])[:, 3], atol=1e-5, rtol=1e-4)


def test_an_edge_made_strong_comes_first_and_its_strength_is_its_spread(
    make_model: Callable[..., KanLM], tokens_WT: Tensor
) -> None:
    model = make_model("kan")
    layer = model.get_submodule("blocks.1.channel.enter")
    with torch.no_grad():
        layer.weight_JIO[:, 5, 7] *= 50  # type: ignore[index, operator]
    [curve] = strongest_edges(model, lambda: model(tokens_WT[:, :-1]), 1)
    assert (curve.edge.layer, curve.edge.input, curve.edge.output) == ("blocks.1.channel.enter", 5, 7)
    assert curve.edge.strength == pytest.approx(float(curve.value(curve.inputs_N).std(correction=0)), rel=1e-4)


def test_a_constant_edge_is_weak_however_large(make_model: Callable[..., KanLM], tokens_WT: Tensor) -> None:
    model = make_model("kan")
    layer = model.get_submodule("blocks.0.channel.enter")
    with torch.no_grad():
        # The bases add up to one inside the grid.
        layer.weight_JIO[:-1, 2, 3] = 100.0  # type: ignore[index, operator]
        layer.weight_JIO[-1, 2, 3] = 0.0  # type: ignore[index, operator]
    curves = strongest_edges(model, lambda: model(tokens_WT[:, :-1]), 10_000)
    [curve] = [c for c in curves if (c.edge.layer, c.edge.input, c.edge.output) == ("blocks.0.channel.enter", 2, 3)]
    inside_N = curve.inputs_N[curve.inputs_N.abs() < 3]
    if len(inside_N) == len(curve.inputs_N):
        assert curve.edge.strength < 0.1


def test_a_row_has_the_curve_its_parts_and_every_input_once(
    make_model: Callable[..., KanLM], tokens_WT: Tensor
) -> None:
    model = make_model("kan")
    [curve] = strongest_edges(model, lambda: model(tokens_WT[:, :-1]), 1)
    row = curve.row()
    assert [a + b for a, b in zip(row["spline"], row["silu"], strict=True)] == pytest.approx(row["y"], abs=1e-5)  # type: ignore[call-overload]
    outside = round(row["inputs_outside_share"] * len(curve.inputs_N))  # type: ignore[operator]
    assert sum(row["input_counts"]) + outside == len(curve.inputs_N)  # type: ignore[call-overload]


def test_a_model_without_edges_has_none(make_model: Callable[..., KanLM], tokens_WT: Tensor) -> None:
    model = make_model("gpt")
    assert strongest_edges(model, lambda: model(tokens_WT[:, :-1]), 5) == []
