"""Known functions are found again, and what is printed is what was measured."""

import math

import pytest
import sympy
import torch

from kanctl.trainer.inside.formula import SHAPES, Formula, fit_points, r_squared

X_N = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
KNOWN = {
    "line": 0.5 * X_N - 1,
    "square": 2 * (X_N - 0.5).square() + 3,
    "cube": -0.4 * (X_N + 0.3) ** 3,
    "abs": 1.5 * (X_N + 0.2).abs(),
    "relu": -2 * torch.relu(X_N - 0.4) + 0.1,
    "exp": 0.3 * torch.exp(0.9 * X_N),
    "sin": 0.7 * torch.sin(2.5 * X_N + 0.4),
    "tanh": 3 * torch.tanh(2 * X_N - 1),
    "gauss": 2 * torch.exp(-((1.5 * X_N + 0.5) ** 2)) - 1,
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_function_is_found(name: str) -> None:
    formula = fit_points(X_N, KNOWN[name])
    assert formula.r2 > 0.999
    assert formula.name == name or SHAPES[formula.name].constants < SHAPES[name].constants


def test_of_good_fits_the_one_with_the_fewest_constants_is_taken() -> None:
    # Nearly a line over these inputs; sin and tanh fit it better still.
    nearly = fit_points(X_N, torch.sin(0.1 * X_N))
    assert nearly.name == "line"
    assert 0.99 < nearly.r2 < 1


def test_a_flat_curve_is_a_constant() -> None:
    formula = fit_points(X_N, torch.full_like(X_N, 0.25))
    assert (formula.name, formula.d, formula.r2, formula.text()) == ("constant", 0.25, 1.0, "0.250")


@pytest.mark.parametrize("name", SHAPES)
def test_the_text_is_the_formula_that_was_measured(name: str) -> None:
    scale = 1.25 if SHAPES[name].has_scale else 1.0
    formula = Formula(name, 0.5, scale, -0.75 if SHAPES[name].has_shift else 0.0, 2.0, 0.0)
    expression = sympy.sympify(formula.text())
    for value in (-1.5, 0.3, 2.0):
        wanted = float(formula.value(torch.tensor([value]).double()))
        assert float(expression.subs("x", value)) == pytest.approx(wanted, rel=2e-3)


def test_r2_of_the_mean_is_zero_and_of_worse_below() -> None:
    y_N = X_N.square()
    assert r_squared(y_N, y_N) == 1
    assert r_squared(y_N.mean().expand_as(y_N), y_N) == pytest.approx(0)
    assert r_squared(-y_N, y_N) < 0


def test_few_points_and_large_values_are_no_trouble() -> None:
    for points in (2, 3):
        assert math.isfinite(fit_points(X_N[:points], 1e6 * X_N[:points]).r2)
