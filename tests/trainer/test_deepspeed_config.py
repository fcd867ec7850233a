"""Our configuration -> DeepSpeed's keys, as a table."""

import pytest

from kanctl.trainer.config import RunConfig, apply_overrides
from kanctl.trainer.deepspeed_config import deepspeed_config

CASES = [
    ([], 1, {"train_batch_size": 2, "train_micro_batch_size_per_gpu": 2}),
    ([], 4, {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 1}),
    (["engine.zero_stage=0"], 2, {"zero_optimization": {"stage": 0}}),
    (["engine.zero_stage=2"], 2, {"zero_optimization": {"stage": 2}}),
    (["engine.dtype=float32"], 1, {"bf16": {"enabled": False}}),
    (["engine.dtype=bfloat16"], 1, {"bf16": {"enabled": True}}),
    (["optim.clip_norm=0.5"], 1, {"gradient_clipping": 0.5}),
    (["optim.clip_norm=0.0"], 1, {"gradient_clipping": 0.0}),
]


@pytest.mark.parametrize(("overrides", "world_size", "wanted"), CASES)
def test_each_value_of_ours_reaches_its_key(
    micro_config: RunConfig, overrides: list[str], world_size: int, wanted: dict[str, object]
) -> None:
    found = deepspeed_config(apply_overrides(micro_config, overrides), world_size)
    assert {key: found[key] for key in wanted} == wanted


def test_neither_an_optimiser_nor_a_schedule_is_left_to_deepspeed(micro_config: RunConfig) -> None:
    assert not {"optimizer", "scheduler"} & set(deepspeed_config(micro_config, 1))
