"""The only file that knows DeepSpeed: a model, an optimiser and the processes that train them, behind a small Engine.

What a step is made of is here; how many there are, what is logged and when it stops is loop.py's.
"""

import logging
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from kanctl.errors import MissingToolError

from .config import RunConfig
from .deepspeed_config import deepspeed_config
from .errors import CheckpointInvalid, TrainingFailed
from .model import KanLM, next_token_loss
from .model.grove import Grove
from .optim import make_optimiser

# DeepSpeed 0.19 calls collectives by names that torch 2.13 is about to drop.
RENAMED_COLLECTIVE = r"`torch\.distributed\.\w+` is deprecated"
# What torch.load and DeepSpeed raise for files that are missing, short or altered.
UNREADABLE = (OSError, RuntimeError, EOFError, KeyError, AssertionError, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One optimiser step as this rank saw it."""

    loss_nats: float
    """Mean over this rank's tokens, before the step."""
    grad_norm: float | None
    """Global norm over all ranks, before clipping; None where the engine does not tell."""


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
        """Write this rank's part of the state for resuming below `folder`. Raises OSError when it cannot."""
        ...

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote, on the same number of ranks. Raises CheckpointInvalid."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The whole model's weights by name on rank 0, nothing on the others. Every rank must ask."""
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...


class DeepSpeedEngine:
    """ZeRO 0 to 3 over gloo (CPU) or NCCL (GPU)."""

    TAG = "engine"

    def __init__(self, config: RunConfig) -> None:
        device = pick_device(config.engine.device)
        self._deepspeed = deepspeed = _import_deepspeed(device.type)
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._device = device
        model = KanLM(config.model, seed=config.seed).to(device)
        self._optimiser = make_optimiser(model, config.optim, fused=device.type == "cuda")
        self._groves = [module for module in model.modules() if isinstance(module, Grove)]
        self._engine, _, _, _ = deepspeed.initialize(
            model=model, optimizer=self._optimiser, config=deepspeed_config(config, self.world_size)
        )

    def train_step(self, tokens_BT: Tensor, lr: float) -> StepResult:
        self._optimiser.set_rate(lr)
        self._engine.train()
        tokens_BT = tokens_BT.to(self._device)
        try:
            with self._noticing_lost_ranks():
                loss = next_token_loss(self._engine(tokens_BT[:, :-1]), tokens_BT[:, 1:])
                self._engine.backward(loss)
                self._engine.step()
                for grove in self._groves:
                    grove.update_balance(dist.all_reduce)
        except torch.OutOfMemoryError as error:
            raise TrainingFailed(
                f"rank {self.rank}: {len(tokens_BT)} sequences do not fit into the memory of {self._device}: {error}",
                "a lower train.sequences_per_rank; then launch again",
            ) from error
        norm = self._engine.get_global_grad_norm()
        return StepResult(loss_nats=loss.item(), grad_norm=None if norm is None else float(norm))

    @torch.no_grad()
    def evaluate(self, tokens_BT: Tensor) -> float:
        self._engine.eval()
        tokens_BT = tokens_BT.to(self._device)
        return next_token_loss(self._engine(tokens_BT[:, :-1]), tokens_BT[:, 1:]).item()

    def mean(self, values: list[float]) -> list[float]:
        summed = torch.tensor(values, dtype=torch.float64, device=self._device)
        with self._noticing_lost_ranks():
            dist.all_reduce(summed)
        return [float(value) for value in summed / self.world_size]

    def save(self, folder: Path) -> None:
        try:
            with self._noticing_lost_ranks():
                self._engine.save_checkpoint(str(folder), tag=self.TAG, save_latest=False)
        except RuntimeError as error:
            # torch.save's word for a write that failed, a full disk among others.
            raise OSError(f"rank {self.rank}: {error}") from error

    def load(self, folder: Path) -> None:
        try:
            with self._noticing_lost_ranks():
                loaded, _ = self._engine.load_checkpoint(str(folder), tag=self.TAG)
        except UNREADABLE as error:
            raise CheckpointInvalid(f"{folder}/{self.TAG} cannot be read: {error}", f"remove {folder}") from error
        if loaded is None:
            raise CheckpointInvalid(f"{folder}/{self.TAG} is not there or not whole", f"remove {folder}")

    def weights(self) -> dict[str, Tensor]:
        # Stages below 3 have no parameter that must be gathered.
        with self._noticing_lost_ranks(), self._deepspeed.zero.GatheredParameters(list(self._engine.parameters())):
            named = self._engine.module.state_dict().items() if self.rank == 0 else ()
            return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in named}

    def barrier(self) -> None:
        # Named, or NCCL warns that it has to guess.
        with self._noticing_lost_ranks():
            dist.barrier(device_ids=[self._device.index] if self._device.type == "cuda" else None)

    @contextmanager
    def _noticing_lost_ranks(self) -> Iterator[None]:
        """Raise TrainingFailed where a collective ends because another process has: that one's log has the cause."""
        try:
            yield
        except RuntimeError as error:
            # NCCL's errors have a class; gloo's are known by their text alone.
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise TrainingFailed(
                f"rank {self.rank} lost another process of the run: {error}",
                "kanctl train logs shows which ended first and why; then kanctl train resume",
            ) from error

    def close(self) -> None:
        """Leave the process group, so that the others are not kept waiting."""
        self._engine.destroy()
        dist.destroy_process_group()


def pick_device(wanted: str) -> torch.device:
    """The device of this rank: `auto` takes the GPU of its local rank where there is one.

    Raises MissingToolError when GPUs are wanted and this rank has none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local_rank >= found:
        raise MissingToolError(
            f"process {local_rank} of this node wanted a GPU of its own, PyTorch {torch.__version__} found {found}",
            "at most one process a GPU; nvidia-smi shows them, and without any: --set engine.device=cpu",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


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
    # DeepSpeed's business, and in every node's log otherwise.
    warnings.filterwarnings("ignore", RENAMED_COLLECTIVE, FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed
