"""The only file that knows DeepSpeed: a model, an optimiser and the processes that train them, behind a small Engine.

What a step is made of is here; how many there are, what is logged and when it stops is loop.py's.
"""

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .config import OptimConfig, RunConfig
from .deepspeed_config import deepspeed_config
from .model import KanLM, next_token_loss

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One optimiser step as this rank saw it."""

    loss_nats: float
    """Mean over this rank's tokens, before the step."""
    grad_norm: float
    """Global norm over all ranks, before clipping; NaN where the engine does not tell."""


class Engine(Protocol):
    """What the loop needs of whatever trains."""

    rank: int
    world_size: int

    def train_step(self, tokens_BT: Tensor, lr: float) -> StepResult:
        """Forward, backward and one optimiser step on this rank's (B, T + 1) tokens."""
        ...

    def evaluate(self, tokens_BT: Tensor) -> float:
        """Mean loss in nats of (B, T + 1) tokens, without training on them."""
        ...

    def mean(self, values: list[float]) -> list[float]:
        """Each value averaged over all ranks; the same on every rank."""
        ...

    def save(self, folder: Path) -> None:
        """Write this rank's part of the state for resuming below `folder`."""
        ...

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote, on the same number of ranks."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The whole model's weights by name; complete on every rank."""
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...


class DeepSpeedEngine:
    """ZeRO 0 to 2 over gloo (CPU) or NCCL (GPU)."""

    TAG = "engine"

    def __init__(self, config: RunConfig) -> None:
        device = pick_device(config.engine.device)
        deepspeed = _import_deepspeed(device.type)
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._device = device
        model = KanLM(config.model, seed=config.seed).to(device)
        optimiser = torch.optim.AdamW(
            parameter_groups(model, config.optim),
            lr=config.optim.lr_peak,
            betas=(config.optim.beta1, config.optim.beta2),
            fused=device.type == "cuda",
        )
        self._engine, self._optimiser, _, _ = deepspeed.initialize(
            model=model, optimizer=optimiser, config=deepspeed_config(config, self.world_size)
        )

    def train_step(self, tokens_BT: Tensor, lr: float) -> StepResult:
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        self._engine.train()
        tokens_BT = tokens_BT.to(self._device)
        loss = next_token_loss(self._engine(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        self._engine.backward(loss)
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return StepResult(loss_nats=loss.item(), grad_norm=float("nan") if norm is None else float(norm))

    @torch.no_grad()
    def evaluate(self, tokens_BT: Tensor) -> float:
        self._engine.eval()
        tokens_BT = tokens_BT.to(self._device)
        return next_token_loss(self._engine(tokens_BT[:, :-1]), tokens_BT[:, 1:]).item()

    def mean(self, values: list[float]) -> list[float]:
        summed = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(summed)
        return [float(value) for value in summed / self.world_size]

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag=self.TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        self._engine.load_checkpoint(str(folder), tag=self.TAG)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().contiguous() for name, value in self._engine.module.state_dict().items()}

    def barrier(self) -> None:
        dist.barrier()

    def close(self) -> None:
        """Leave the process group, so that the others are not kept waiting."""
        self._engine.destroy()
        dist.destroy_process_group()


def pick_device(wanted: str) -> torch.device:
    """The device of this rank: `auto` takes the GPU of its local rank where there is one."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """Weight decay on matrices and edge weights, none on vectors (norm gains)."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": decayed, "weight_decay": optim.weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _import_deepspeed(device: str) -> Any:
    """The package, quiet, and without the compilation of an op that training does not need."""
    os.environ.setdefault("DS_ACCELERATOR", device)
    # Logged at import, before its logger can be reached.
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
        from deepspeed.ops import __compatible_ops__

    # init_distributed would compile this C++ op at first use, 90 s of CPU; gloo and NCCL serve. A private name of the
    # pinned version, guarded by a test.
    __compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed
