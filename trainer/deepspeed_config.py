"""DeepSpeed's JSON, made from our configuration. No other file knows its keys."""

from typing import Any

from .config import RunConfig


def deepspeed_config(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The dictionary that deepspeed.initialize takes; learning rates are set by the loop, the optimiser is torch's."""
    per_rank = config.train.sequences_per_rank
    return {
        "train_micro_batch_size_per_gpu": per_rank,
        "train_batch_size": per_rank * world_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optim.clip_norm,
        "zero_optimization": {"stage": config.engine.zero_stage},
        # DeepSpeed lists the optimisers that it tested with ZeRO; torch's AdamW with several groups is as safe.
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.engine.dtype == "bfloat16"},
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }
