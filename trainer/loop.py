"""The training loop: steps, records, evaluations and checkpoints, until the last step or a request to stop.

Knows the Engine protocol and nothing of DeepSpeed, so that a test can run it on a small engine of its own.
"""

import errno
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .checkpoint import resume, save_checkpoint
from .config import RunConfig
from .data.loader import Corpus
from .engine import Engine, StepResult
from .errors import TrainingFailed
from .metrics import MetricsWriter
from .schedule import learning_rate

# A stop asked of one node must reach all ranks at the same step: any share of stopped ranks ends the run.
STOP_SHARE_MIN = 1e-9


@dataclass(slots=True)
class StopRequest:
    """Set by a signal handler; read by the loop between steps."""

    asked: bool = False


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

    Raises TrainingFailed when the loss is no longer a number or the disk is full; the end record says so first.
    """
    step = 0
    try:
        step = resume(training.engine, training.run_dir, training.config)
        if step:
            training.say(f"going on from the checkpoint of step {step}")
        step, reason = _steps(training, step)
    except (TrainingFailed, OSError) as error:
        training.metrics.write("end", step, reason="failed", message=str(error))
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise TrainingFailed(f"the disk of {training.run_dir} is full", "free space, then train resume") from error
        raise
    training.metrics.write("end", step, reason=reason)
    training.say(f"{reason} at step {step}")
    return reason


def _steps(training: Training, done: int) -> tuple[int, str]:
    config, engine = training.config, training.engine
    pace = _Pace(config, engine.world_size)
    for step in range(done + 1, config.train.steps + 1):
        result = _one_step(training, step)
        loss, stop_share = engine.mean([result.loss_nats, float(training.stop.asked)])
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss is {loss} at step {step}", "a lower optim.lr_peak, or clip_norm above 0; then launch again"
            )
        is_last = step == config.train.steps or stop_share > STOP_SHARE_MIN
        if step == done + 1 or step % config.train.log_every_steps == 0 or is_last:
            _log(training, step, loss, result.grad_norm, pace.tokens_per_s(step))
        if step % config.train.eval_every_steps == 0 or step == config.train.steps:
            _evaluate(training, step)
        if step % config.train.checkpoint_every_steps == 0 or is_last:
            save_checkpoint(engine, training.run_dir, config, step)
        if is_last:
            return step, "finished" if step == config.train.steps else "stopped"
    return done, "finished"


def _one_step(training: Training, step: int) -> StepResult:
    config, engine = training.config, training.engine
    batch = training.corpus.training_batch(
        config.train.sequences_per_rank, config.model.context_tokens, seed=config.seed, step=step, rank=engine.rank
    )
    return engine.train_step(batch, learning_rate(step, config.train.steps, config.optim))


def _log(training: Training, step: int, loss: float, grad_norm: float, tokens_per_s: float) -> None:
    config = training.config
    tokens = step * config.train.sequences_per_rank * config.model.context_tokens * training.engine.world_size
    training.metrics.write(
        "train",
        step,
        loss_nats=loss,
        lr=learning_rate(step, config.train.steps, config.optim),
        tokens_per_s=round(tokens_per_s, 1),
        tokens=tokens,
        grad_norm=grad_norm if math.isfinite(grad_norm) else None,
    )
    left_s = (config.train.steps - step) * tokens / max(1, step) / tokens_per_s
    training.say(
        f"step {step}/{config.train.steps}  loss {loss:.4f}  {tokens_per_s:,.0f} tokens/s  {left_s:.0f} s left"
    )


def _evaluate(training: Training, step: int) -> None:
    """Mean loss over the first train.eval_sequences validation windows, shared out over the ranks."""
    config, engine = training.config, training.engine
    windows = training.corpus.validation_windows(config.model.context_tokens)[: config.train.eval_sequences]
    total, count = 0.0, 0
    for batch in windows[engine.rank :: engine.world_size].split(config.train.sequences_per_rank):  # type: ignore[no-untyped-call]
        total += engine.evaluate(batch) * len(batch)
        count += len(batch)
    mean_total, mean_count = engine.mean([total, float(count)])
    loss = mean_total / mean_count
    # Marks between documents are predicted too but are no bytes; they are 1 in 16,000, and evaluate.py counts exactly.
    training.metrics.write("eval", step, val_loss_nats=loss, val_bits_per_byte=loss / math.log(2))
    training.say(f"step {step}  validation {loss / math.log(2):.4f} bits/byte")


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
