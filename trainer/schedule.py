"""The learning rate as a pure function of the step."""

import math

from .config import OptimConfig


def learning_rate(step: int, steps: int, optim: OptimConfig) -> float:
    """Linear warm-up to the peak, then down to the final fraction at the last step, as optim.schedule says.

    Args:
        step: 1 for the first step, `steps` for the last.

    Source: half a cosine, arXiv 1608.03983; warm-up, stable, decay in a line, arXiv 2404.06395.
    """
    if step <= optim.warmup_steps:
        return optim.lr_peak * step / optim.warmup_steps
    low = optim.lr_peak * optim.lr_final_fraction
    return low + (optim.lr_peak - low) * _left(min(step, steps), steps, optim)


def _left(step: int, steps: int, optim: OptimConfig) -> float:
    """What is left of the way down to the final rate, from 1 to 0."""
    if optim.schedule == "cosine":
        done = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
        return (1 + math.cos(math.pi * done)) / 2
    falling = optim.decay_fraction * steps
    return min(1.0, (steps - step) / falling) if falling else 1.0
