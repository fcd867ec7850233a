"""The training loop: steps, records, evaluations and checkpoints, until the last step or a request to stop.

Knows the Engine protocol and nothing of DeepSpeed, so that a test can run it on a small engine of its own.
"""

import contextlib
import errno
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kanctl.errors import KanctlError

from .checkpoint import resume, save_checkpoint
from .config import RunConfig
from .data.loader import Corpus
from .data.shards import END_OF_DOCUMENT
from .engine import Engine, StepResult
from .errors import TrainingFailed
from .metrics import MetricsWriter
from .schedule import learning_rate
from .stop import StopRequest

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything that one run of the loop works with."""

    engine: Engine
    corpus: Corpus
    config: RunConfig
    run_dir: Path
    metrics: MetricsWriter
    stop: StopRequest
    say: Callable[[str], None]


def train(training: Training) -> str:
    """Train from the newest checkpoint to the last step; gives `finished` or `stopped`.

    Raises TrainingFailed when the loss is no longer a number or a checkpoint cannot be written, CorpusInvalid and
    CheckpointInvalid before the first step; the end record says so first.
    """
    step = 0
    try:
        training.corpus.require_windows(training.config.model.context_tokens)
        step = resume(training.engine, training.run_dir, training.config)
        if step:
            training.say(f"going on from the checkpoint of step {step}")
        step, reason = _steps(training, step)
    except (KanctlError, OSError) as error:
        # On a full disk this record may not fit either; the error itself still reaches the log.
        with contextlib.suppress(OSError):
            training.metrics.write("end", training.metrics.last_step or step, reason="failed", message=str(error))
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise TrainingFailed(
                f"the disk of {training.run_dir} is full", "free space there, then kanctl train resume"
            ) from error
        raise
    training.metrics.write("end", step, reason=reason)
    training.say(f"{reason} at step {step}")
    return reason


def _steps(training: Training, done: int) -> tuple[int, str]:
    config, engine = training.config, training.engine
    pace = _Pace(config, engine.world_size)
    for step in range(done + 1, config.train.steps + 1):
        result = _one_step(training, step)
        # A stop asked of one node must reach all ranks at the same step: any share of stopped ranks ends the run.
        loss, norm, stop_share = engine.mean([result.loss_nats, result.grad_norm or 0.0, float(training.stop.asked)])
        _require_finite("loss", loss, step)
        # The step has made the weights of it: the next checkpoint would keep them.
        _require_finite("gradient norm", norm, step)
        is_last = step == config.train.steps or stop_share > 0
        if step == done + 1 or step % config.train.log_every_steps == 0 or is_last:
            _log(training, step, loss, result.grad_norm, pace.tokens_per_s(step))
        if step % config.train.eval_every_steps == 0 or step == config.train.steps:
            _evaluate(training, step)
        if step % config.train.checkpoint_every_steps == 0 or is_last:
            save_checkpoint(engine, training.run_dir, config, step)
        if is_last:
            return step, "finished" if step == config.train.steps else "stopped"
    return done, "finished"


def _require_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingFailed(
            f"the {what} is {value} at step {step}",
            "a lower optim.lr_peak or a longer optim.warmup_steps, with optim.clip_norm above 0; then launch again",
        )


def _one_step(training: Training, step: int) -> StepResult:
    config, engine = training.config, training.engine
    batch = training.corpus.training_batch(
        config.train.sequences_per_rank, config.model.context_tokens, seed=config.seed, step=step, rank=engine.rank
    )
    return engine.train_step(batch, learning_rate(step, config.train.steps, config.optim))


def _log(training: Training, step: int, loss: float, grad_norm: float | None, tokens_per_s: float) -> None:
    config = training.config
    tokens = step * config.train.sequences_per_rank * config.model.context_tokens * training.engine.world_size
    training.metrics.write(
        "train",
        step,
        loss_nats=loss,
        lr=learning_rate(step, config.train.steps, config.optim),
        tokens_per_s=round(tokens_per_s, 1),
        tokens=tokens,
        grad_norm=grad_norm,
    )
    left_s = (config.train.steps - step) * tokens / max(1, step) / tokens_per_s
    training.say(
        f"step {step}/{config.train.steps}  loss {loss:.4f}  {tokens_per_s:,.0f} tokens/s  {left_s:.0f} s left"
    )


def _evaluate(training: Training, step: int) -> None:
    """Mean loss over the first train.eval_sequences validation windows, shared out over the ranks."""
    config, engine = training.config, training.engine
    windows = training.corpus.validation_windows(config.model.context_tokens, config.train.eval_sequences)
    own = windows[engine.rank :: engine.world_size]
    total_nats, tokens = 0.0, 0
    # Rank 0 has the most. All pass equally often, since under ZeRO 3 the ranks gather the weights together.
    for first in range(0, len(windows[:: engine.world_size]), config.train.sequences_per_rank):
        batch = own[first : first + config.train.sequences_per_rank]
        targets = batch.numel() - len(batch)
        total_nats += engine.evaluate(batch if len(batch) else windows[:1]) * targets
        tokens += targets
    marks = int((own[:, 1:] == END_OF_DOCUMENT).sum())
    mean_nats, mean_tokens, mean_marks = engine.mean([total_nats, float(tokens), float(marks)])
    _require_finite("validation loss", mean_nats, step)
    # As in evaluate.py: the marks between documents are paid for, but are no bytes.
    bits_per_byte = mean_nats / math.log(2) / max(mean_tokens - mean_marks, 1e-9)
    training.metrics.write("eval", step, val_loss_nats=mean_nats / mean_tokens, val_bits_per_byte=bits_per_byte)
    training.say(f"step {step}  validation {bits_per_byte:.4f} bits/byte")


class _Pace:
    """Tokens per second over all ranks since the last question."""

    def __init__(self, config: RunConfig, world_size: int) -> None:
        self._tokens_per_step = config.train.sequences_per_rank * config.model.context_tokens * world_size
        self._time_s, self._step = time.monotonic(), 0

    def tokens_per_s(self, step: int) -> float:
        now_s = time.monotonic()
        # The first question of a resumed run knows of one step only.
        steps = step - self._step if self._step else 1
        pace = steps * self._tokens_per_step / max(now_s - self._time_s, 1e-9)
        self._time_s, self._step = now_s, step
        return pace
