"""What runs, and why: the module's document for CPUs and for GPUs that are not here."""

import json

import pytest
import torch

from kanctl.trainer.config import RunConfig, apply_overrides, load_recipe, to_dict
from kanctl.trainer.explain import PLAIN, explain, main
from kanctl.trainer.recipe_file import shipped_recipes


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_layer_of_every_recipe_has_a_route_and_a_reason(recipe: str) -> None:
    config = load_recipe(recipe)
    found = explain(config, "9.0")
    for part in ("token mixer", "channel mixer"):
        layers = {layer for row in found["rows"] if row["part"] == part for layer in row["layers"]}
        assert layers == set(range(config.model.layers))
    assert all(row["reason"] and row["implementation"] for row in found["rows"])


def test_the_classes_that_have_no_routes_are_classes_of_the_model() -> None:
    import kanctl.trainer.model as model

    names = {name for each in vars(model).values() if hasattr(each, "__dict__") for name in vars(each)}
    assert set(PLAIN) <= names


def kan(*words: str) -> RunConfig:
    return apply_overrides(load_recipe("kan"), words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="explains for the GPU that is here")
def test_without_a_gpu_it_is_plain_pytorch() -> None:
    found = explain(kan(), None)
    assert (found["device"], found["capability"]) == ("cpu", None)
    assert {row["implementation"] for row in found["rows"]} == {"torch"}
    assert "the device is cpu; Triton kernels need a GPU" in {row["reason"] for row in found["rows"]}


@pytest.mark.parametrize(
    ("words", "layer"),
    [
        (("model.width=64",), "enter: EdgeLayer"),
        (("model.factor_rank=8",), "enter: FactoredEdge"),
        (("model.group_order=4",), "leave: CyclicEdge"),
    ],
)
def test_edge_layers_of_every_kind_say_what_a_gpu_would_run(words: tuple[str, ...], layer: str) -> None:
    found = explain(kan(*words), "9.0")
    [row] = [row for row in found["rows"] if row["layer"] == layer]
    assert (row["work"], row["implementation"]) == ("all", "slab")
    assert row["reason"].endswith("not cuda: it is for bfloat16, found float32")


def test_hopper_runs_cuda_kernels_in_bfloat16_and_ampere_does_not() -> None:
    recipe = kan("model.width=64", "engine.dtype=bfloat16", "engine.device=cuda")
    for capability, wanted in (("9.0", {"forward", "input gradient", "weight gradient"}), ("8.0", set())):
        rows = [row for row in explain(recipe, capability)["rows"] if row["layer"] == "enter: EdgeLayer"]
        assert {row["work"] for row in rows if row["implementation"] == "cuda"} == wanted


def test_the_module_prints_one_line_and_tells_a_wrong_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", json.dumps(to_dict(kan())), "--capability", "8.0"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["capability"] == "8.0"
    assert main(["--config", '{"name": "kan"}']) == 2
    assert "model: missing" in capsys.readouterr().err
