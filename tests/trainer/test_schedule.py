"""The learning rate over a run."""

from dataclasses import replace

import pytest

from kanctl.trainer.config import RunConfig
from kanctl.trainer.schedule import learning_rate


def rates(config: RunConfig, steps: int, warmup: int) -> list[float]:
    optim = replace(config.optim, lr_peak=1.0, lr_final_fraction=0.1, warmup_steps=warmup)
    return [learning_rate(step, steps, optim) for step in range(1, steps + 1)]


def test_it_rises_in_equal_steps_to_the_peak_then_only_falls(micro_config: RunConfig) -> None:
    found = rates(micro_config, 50, 10)
    assert found[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert found[9:] == sorted(found[9:], reverse=True)
    assert len(set(found[9:])) == 41


def test_it_ends_at_the_final_fraction_half_way_in_the_middle(micro_config: RunConfig) -> None:
    found = rates(micro_config, 50, 10)
    assert found[-1] == pytest.approx(0.1)
    assert found[29] == pytest.approx((1 + 0.1) / 2)


def test_without_warm_up_it_starts_below_the_peak_at_once(micro_config: RunConfig) -> None:
    found = rates(micro_config, 4, 0)
    assert found == sorted(found, reverse=True)
    assert 0.1 < found[0] < 1
    assert found[-1] == pytest.approx(0.1)


def test_a_run_of_one_step_has_a_rate(micro_config: RunConfig) -> None:
    assert rates(micro_config, 1, 0) == pytest.approx([0.1])


def test_beyond_the_last_step_it_stays(micro_config: RunConfig) -> None:
    optim = replace(micro_config.optim, lr_peak=1.0, warmup_steps=2)
    assert learning_rate(99, 10, optim) == pytest.approx(learning_rate(10, 10, optim))


def test_a_stable_schedule_stays_level_until_its_decay(micro_config: RunConfig) -> None:
    config = replace(
        micro_config, optim=replace(micro_config.optim, schedule="warmup-stable-decay", decay_fraction=0.25)
    )
    found = rates(config, 40, 4)
    assert found[4:30] == [1.0] * 26
    assert found[30:] == pytest.approx([1.0 - 0.09 * k for k in range(1, 11)])


def test_a_decay_of_nothing_stays_level_to_the_end(micro_config: RunConfig) -> None:
    config = replace(
        micro_config, optim=replace(micro_config.optim, schedule="warmup-stable-decay", decay_fraction=0.0)
    )
    assert rates(config, 10, 1)[1:] == [1.0] * 9
