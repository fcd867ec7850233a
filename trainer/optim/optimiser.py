"""One torch optimiser that updates each group by its rule, on whole weights or on the shards that ZeRO leaves.

The rules give directions; rates and decay are applied here. AdamW is torch's own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..config import OptimConfig
from ..model.kan_lm import KanLM
from .groups import parameter_groups
from .kalman_diagonal import kalman_diagonal_direction
from .kalman_matrix import kalman_matrix_direction, learn_moment
from .moments import InputMoments
from .muon import muon_direction
from .sharding import mean_over_ranks

EPSILON = 1e-8
# A look is at most this part of the steps taken away from the one before.
EARLY_LOOKS = 10


class Optimiser(torch.optim.Optimizer):
    """Groups as parameter_groups makes them. A step is `update`, which a CUDA graph can hold, and `advance`.

    Args:
        moments: the inputs that the groups of rule `kalman-matrix` need; None where there is none.
        refresh_steps: every so many steps these inputs are looked at, more often at first.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        defaults: dict[str, Any],
        moments: InputMoments | None,
        refresh_steps: int,
        **adamw: Any,
    ) -> None:
        self._moments = moments
        self._refresh_steps = refresh_steps
        super().__init__(groups, defaults | {"steps_taken": 0, "looks": 0})
        by_adamw = [group for group in self.param_groups if group["rule"] == "adamw"]
        # A state and groups of this optimiser: it steps for it, and keeps nothing.
        self._adamw = torch.optim.AdamW(by_adamw, **adamw) if by_adamw else None
        self._collect_next()

    @property
    def looks(self) -> bool:
        """Whether some steps look at the layers' inputs."""
        return self._moments is not None

    @property
    def is_collecting(self) -> bool:
        """Whether the coming step looks at the layers' inputs; `advance` decides, and may be overruled."""
        return self._moments is not None and self._moments.is_collecting

    @is_collecting.setter
    def is_collecting(self, wanted: bool) -> None:
        if self._moments is not None:
            self._moments.is_collecting = wanted

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step; groups scale it. A rate that is a tensor is filled, for CUDA graphs."""
        for group in self.param_groups:
            scaled = rate * group["lr_scale"]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(scaled)
            else:
                group["lr"] = scaled

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient. Raises ValueError for a closure: nothing here calls one."""
        if closure is not None:
            raise ValueError("wanted no closure")
        self.update()
        self.advance()

    @torch.no_grad()
    def update(self) -> None:
        """Move the weights; nothing waits for the device."""
        if self._adamw is not None:
            # Loading a state makes new ones of both.
            self._adamw.param_groups = [group for group in self.param_groups if group["rule"] == "adamw"]
            self._adamw.state = self.state
            self._adamw.step()
        for group in self.param_groups:
            if group["rule"] != "adamw":
                for part in group["params"]:
                    if part.grad is not None:
                        part.mul_(1 - group["lr"] * group["weight_decay"])
                        part.sub_(self._direction(group, part, part.grad) * group["lr"])

    @torch.no_grad()
    def advance(self) -> None:
        """After the update: learn from the inputs that this step's forward pass showed, and count the step."""
        # ZeRO steps with one group at a time: stages 1 and 2 hide the others, stage 3 empties them.
        for group in (group for group in self.param_groups if group["params"]):
            if self._moments is not None and group["rule"] == "kalman-matrix" and self._is_look(group):
                self._learn(group, self._moments)
            group["steps_taken"] += 1
        self._collect_next()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state, and look at inputs when the optimiser it came from would have."""
        super().load_state_dict(state_dict)
        self._collect_next()

    def _direction(self, group: dict[str, Any], part: Tensor, grad: Tensor) -> Tensor:
        state = self.state[part]
        if group["rule"] == "muon":
            return muon_direction(group, part, grad, state)
        if group["rule"] == "kalman-diagonal":
            return kalman_diagonal_direction(group, part, grad, state)
        assert self._moments is not None
        return kalman_matrix_direction(group, part, grad, state, self._moments.sides[group["name"]])

    def _learn(self, group: dict[str, Any], moments: InputMoments) -> None:
        moment_SCC = moments.newest(group["name"])
        if moment_SCC is not None:
            group["looks"] += 1
            # The first looks count alike, until as much is forgotten as shall be.
            share = max(1 / group["looks"], 1 - group["forgetting"] ** self._look_every(group["steps_taken"]))
            learn_moment(group, self.state[group["params"][0]], mean_over_ranks(moment_SCC), share)

    def _is_look(self, group: dict[str, Any]) -> bool:
        """Whether the step that follows those taken looks at inputs."""
        return bool(group["steps_taken"] % self._look_every(group["steps_taken"]) == 0)

    def _look_every(self, steps_taken: int) -> int:
        # Inputs change fast at first: with looks 50 steps apart from the start, training stayed 250 steps behind
        # (nanoGPT's micro shape on Shakespeare, H200, 2026-11-23).
        return min(self._refresh_steps, 1 + steps_taken // EARLY_LOOKS)

    def _collect_next(self) -> None:
        # ZeRO steps with one group at a time in param_groups; each counts its own steps, and the last one's is right.
        self.is_collecting = self._is_look(self.param_groups[0])


def make_optimiser(
    model: KanLM,
    optim: OptimConfig,
    *,
    weights: Mapping[str, Tensor] | None = None,
    fused: bool = False,
    capturable: bool = False,
) -> Optimiser:
    """The optimiser that a recipe names, for a model that trains.

    Args:
        weights: what is updated in place of the model's own parameters, by their names.
        fused: AdamW in one kernel, on a GPU.
        capturable: rates are tensors on the weights' device, so that a CUDA graph can hold an update.
    """
    groups = parameter_groups(model, optim, weights)
    for group in groups if capturable else []:
        group["lr"] = torch.tensor(optim.lr_peak, device=group["params"][0].device)
    defaults = {
        "lr": optim.lr_peak,
        "betas": (optim.beta1, optim.beta2),
        "eps": EPSILON,
        "momentum": optim.momentum,
        "forgetting": optim.forgetting,
        "damping": optim.damping,
    }
    return Optimiser(
        groups,
        defaults,
        InputMoments(model) if optim.kind == "kalman" else None,
        optim.refresh_steps,
        fused=fused,
        capturable=capturable,
    )
