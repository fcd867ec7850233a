"""The filter of single weights against the textbook's scalar filter, written out for one weight."""

import math

import pytest
import torch
from torch import Tensor

from kanctl.trainer.optim.kalman_diagonal import kalman_diagonal_direction

GROUP = {"betas": (0.9, 0.95), "eps": 1e-8}


def scalar_filter(gradients: list[float], beta1: float, beta2: float) -> list[tuple[float, float, float, float]]:
    """(m, P, r, gain) after each gradient, in Python's floats."""
    mean = variance = noise = 0.0
    seen = []
    for gradient in gradients:
        if noise == 0:
            gain, mean, noise = 1.0, gradient, gradient**2
            variance = 0.0
        else:
            predicted = variance + noise * (1 - beta1) ** 2 / beta1
            gain = predicted / (predicted + noise)
            innovation = gradient - mean
            mean += gain * innovation
            variance = (1 - gain) * predicted
            noise += (1 - beta2) * (innovation**2 * (1 - gain) - noise)
        seen.append((mean, variance, noise, gain))
    return seen


def test_each_weight_has_the_scalar_filter_of_its_gradients() -> None:
    torch.manual_seed(0)
    slopes = torch.randn(30, 4, 3, dtype=torch.float64) + 0.5
    state: dict[str, Tensor] = {}
    for slope in slopes:
        direction = kalman_diagonal_direction(GROUP, slope, slope, state)
    for place in [(0, 0), (3, 2)]:
        mean, variance, noise, _ = scalar_filter([float(slope[place]) for slope in slopes], 0.9, 0.95)[-1]
        assert float(state["mean"][place]) == pytest.approx(mean, rel=1e-12)
        assert float(state["variance"][place]) == pytest.approx(variance, rel=1e-12)
        assert float(state["noise"][place]) == pytest.approx(noise, rel=1e-12)
        assert float(direction[place]) == pytest.approx(mean / math.sqrt(mean**2 + noise), rel=1e-12)


def test_the_steady_gain_under_even_noise_is_one_minus_beta1() -> None:
    # Signs in turn: the innovations' squares settle, and so does the gain.
    gains = [gain for *_, gain in scalar_filter([(-1.0) ** step for step in range(400)], 0.9, 0.95)]
    assert gains[-1] == pytest.approx(0.1, rel=0.01)


def test_more_noise_lowers_the_gain_at_once() -> None:
    quiet = [1.0 + 0.1 * (-1) ** step for step in range(100)]
    gains = [gain for *_, gain in scalar_filter([*quiet, 30.0, -30.0], 0.9, 0.95)]
    assert gains[-1] < 0.2 * gains[99]


def test_directions_do_not_depend_on_the_losss_scale_and_stay_within_one() -> None:
    torch.manual_seed(0)
    slopes = torch.randn(20, 50, dtype=torch.float64)
    small: dict[str, Tensor] = {}
    large: dict[str, Tensor] = {}
    for slope in slopes:
        one = kalman_diagonal_direction(GROUP, slope, slope, small)
        other = kalman_diagonal_direction(GROUP, slope, 1000 * slope, large)
        torch.testing.assert_close(one, other)
        assert one.abs().max() <= 1


def test_a_weight_without_gradients_stays_and_begins_with_its_first() -> None:
    state: dict[str, Tensor] = {}
    for _ in range(3):
        assert not kalman_diagonal_direction(GROUP, torch.zeros(2), torch.zeros(2), state).any()
    kalman_diagonal_direction(GROUP, torch.zeros(2), torch.tensor([0.0, -3.0]), state)
    assert state["mean"].tolist() == [0.0, -3.0]
    assert state["noise"].tolist() == [0.0, 9.0]
