"""Which weight follows which rule, with which decay and rate: torch's parameter groups, from a model and a config.

A group of the rules `muon` and `kalman-matrix` is one weight, which they see whole; DeepSpeed makes one flat tensor of
a group and cuts it into shards, so the group says the shape. Letters: E matrices of a weight, O and I its sides.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..config import OptimConfig
from ..model.ada import ArnoldDiffusionAttention
from ..model.edge import EdgeLayer
from ..model.factors import FactoredLayer, SharedFactors
from ..model.grove import GatedSubnets, KanSubnets
from ..model.kan_lm import KanLM

# Weights that multiply a vector, by the module that has them. The number is that of leading dims which count matrices;
# the last dim is one side, all between the other. Everything else is a table, a gain, or a kernel.
MATRICES: dict[type[nn.Module], tuple[int, tuple[str, ...]]] = {
    nn.Linear: (0, ("weight",)),
    EdgeLayer: (0, ("weight_JIO",)),
    SharedFactors: (0, ("out_OR", "in_JIR")),
    FactoredLayer: (0, ("core_RR",)),
    GatedSubnets: (1, ("enter_EIO", "leave_EIO")),
    KanSubnets: (1, ("enter_EJIO", "leave_EJIO")),
}
# Logits, which decay would pull to equal weights. Vectors never decay.
NOT_DECAYED: dict[type[nn.Module], tuple[str, ...]] = {ArnoldDiffusionAttention: ("tap_logits_HCW",)}


def parameter_groups(
    model: KanLM, optim: OptimConfig, weights: Mapping[str, Tensor] | None = None
) -> list[dict[str, Any]]:
    """Groups with `rule`, `weight_decay`, `lr_scale`; those of one weight also with `name`, `shape`, `batch_dims`.

    Args:
        weights: what is updated in place of the model's own parameters, by their names: copies in float32.
    """
    rule_of_matrix, rule_of_rest = {
        "adamw": ("adamw", "adamw"),
        "muon": ("muon", "adamw"),
        "kalman": ("kalman-matrix", "kalman-diagonal"),
        "kalman-diagonal": ("kalman-diagonal", "kalman-diagonal"),
    }[optim.kind]
    matrices, undecayed = _marked(model, optim.kind)
    scales = {name: layers**-0.5 for name, layers in model.shared_factor_layers().items()}
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        decay = optim.weight_decay if parameter.ndim >= 2 and name not in undecayed else 0.0
        rule = rule_of_matrix if name in matrices else rule_of_rest
        group: dict[str, Any] = {"rule": rule, "weight_decay": decay, "lr_scale": scales.get(name, 1.0)}
        if rule in {"muon", "kalman-matrix"}:
            group |= {"name": name, "shape": tuple(parameter.shape), "batch_dims": matrices[name]}
        key = tuple(group.values())
        groups.setdefault(key, {**group, "params": []})["params"].append(weights[name] if weights else parameter)
    return list(groups.values())


def _marked(model: nn.Module, kind: str) -> tuple[dict[str, int], set[str]]:
    """Names of the weights that are matrices, with their leading dims, and of those that do not decay."""
    matrices: dict[str, int] = {}
    undecayed: set[str] = set()
    for place, module in model.named_modules():
        prefix = f"{place}." if place else ""
        for owner, (batch_dims, names) in MATRICES.items():
            # The Kalman filter must see a layer's inputs: those of factors and subnets stay inside their modules.
            if isinstance(module, owner) and (kind != "kalman" or owner in {nn.Linear, EdgeLayer}):
                matrices |= {prefix + name: batch_dims for name in names}
        for owner, names in NOT_DECAYED.items():
            if isinstance(module, owner):
                undecayed |= {prefix + name for name in names}
    return matrices, undecayed
