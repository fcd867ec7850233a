"""The learning rate as a pure function of the step."""

import math

from .config import OptimConfig


def learning_rate(step: int, steps: int, optim: OptimConfig) -> float:
    """Linear warm-up to the peak, then half a cosine down to the final fraction at the last step.

    Args:
        step: 1 for the first step, `steps` for the last.
    """
    if step <= optim.warmup_steps:
        return optim.lr_peak * step / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
    low = optim.lr_peak * optim.lr_final_fraction
    return low + (optim.lr_peak - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2
