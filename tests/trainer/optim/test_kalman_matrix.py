"""The filter of whole weights: P is the inverse it claims to be, and least squares are solved in its directions."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.model.edge import EdgeLayer
from kanctl.trainer.ops.bspline import SplineGrid
from kanctl.trainer.optim.kalman_matrix import DIRECTION_RMS, kalman_matrix_direction, learn_moment, precision
from kanctl.trainer.optim.moments import EdgeInputs, InputSide, LinearInputs


def group(shape: tuple[int, ...], damping: float) -> dict[str, object]:
    return {"shape": shape, "momentum": 0.0, "eps": 1e-12, "damping": damping}


def test_precision_is_the_inverse_of_the_scaled_moment_and_its_damping() -> None:
    torch.manual_seed(0)
    x_SNC = torch.randn(3, 40, 5, dtype=torch.float64) * 7
    moment_SCC = x_SNC.mT @ x_SNC / 40
    mean = torch.stack([each.diagonal() for each in moment_SCC]).mean()
    for one, inverse in zip(moment_SCC, precision(moment_SCC, 0.3), strict=True):
        unit = torch.eye(5, dtype=torch.float64)
        torch.testing.assert_close(inverse @ (one / mean + 0.3 * unit), unit)


def test_inputs_that_are_always_zero_leave_a_precision() -> None:
    assert precision(torch.zeros(2, 3, 3), 0.5).isfinite().all()


@pytest.mark.parametrize("is_edge", [False, True])
def test_the_direction_of_least_squares_points_at_the_answer(is_edge: bool) -> None:
    # One step of Newton's method: the gradient of a squared error is (W - W*) times the inputs' second moment.
    torch.manual_seed(0)
    layer = EdgeLayer(6, 3, SplineGrid(cells=5, limit=3.0), "cell")
    # Edges' blocks take inputs as uncorrelated.
    x_NI = torch.randn(4000, 6) if is_edge else torch.randn(4000, 6) @ torch.randn(6, 6)
    side: InputSide = EdgeInputs(layer) if is_edge else LinearInputs()
    shape = (9, 6, 3) if is_edge else (3, 6)
    error = torch.randn(shape)
    moment = side.moment(x_NI)

    def curved(weight: Tensor) -> Tensor:
        return side.multiply(moment, weight)

    def alike(one: Tensor, other: Tensor) -> float:
        """The cosine between what two changes of the weight do to the outputs."""
        sizes = (one * curved(one)).sum() * (other * curved(other)).sum()
        return float((one * curved(other)).sum() / sizes.sqrt())

    state: dict[str, Tensor] = {}
    learn_moment(group(shape, 1e-5), state, moment, 1.0)
    direction = kalman_matrix_direction(group(shape, 1e-5), error, curved(error), state, side)
    plain = kalman_matrix_direction(group(shape, 1e-5), error, curved(error), {}, side)
    assert alike(direction, error) > 0.999
    assert alike(plain, error) < 0.95
    assert direction.square().mean().sqrt() == pytest.approx(DIRECTION_RMS)


def test_a_share_of_the_kept_moment_is_forgotten() -> None:
    state: dict[str, Tensor] = {}
    learn_moment(group((2, 2), 0.1), state, torch.eye(2)[None], 0.1)
    learn_moment(group((2, 2), 0.1), state, 3 * torch.eye(2)[None], 0.1)
    torch.testing.assert_close(state["moment"], 1.2 * torch.eye(2)[None])


def test_no_gradient_gives_no_direction() -> None:
    zero = torch.zeros(3, 2)
    assert not kalman_matrix_direction(group((3, 2), 0.1), zero, zero, {}, LinearInputs()).any()
