"""A short formula for one curve: a f(b x + c) + d with f from a small dictionary, by least squares over real inputs.

Of all functions the one with the fewest constants is taken whose R2 comes within TOLERANCE of the best: a formula is
for reading. Letters: N points, M tried pairs of b and c.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import sympy
import torch
from torch import Tensor

from .edges import EdgeCurve

TOLERANCE = 0.01
# Inputs of the edge that are fitted; they weigh each part of the curve by how often it is used.
MOST_POINTS = 512
# Tries of each of b and c, three times, each time around the best so far.
TRIES, ROUNDS = 25, 4
DIGITS = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """A function of the dictionary, for numbers and for reading, and which constants it has besides a and d."""

    of: Callable[[Tensor], Tensor]
    symbol: Callable[[sympy.Expr], sympy.Expr]
    has_scale: bool = True
    has_shift: bool = True

    @property
    def constants(self) -> int:
        """Numbers that a formula with this function has."""
        return 2 + self.has_scale + self.has_shift


# A power's or a kink's scale goes into a.
SHAPES: dict[str, Shape] = {
    "constant": Shape(torch.zeros_like, lambda u: sympy.Integer(0), has_scale=False, has_shift=False),
    "line": Shape(lambda u: u, lambda u: u, has_scale=False, has_shift=False),
    "square": Shape(torch.square, lambda u: u**2, has_scale=False),
    "cube": Shape(lambda u: u**3, lambda u: u**3, has_scale=False),
    "abs": Shape(torch.abs, sympy.Abs, has_scale=False),
    "relu": Shape(torch.relu, lambda u: sympy.Max(0, u), has_scale=False),  # type: ignore[no-untyped-call]
    "exp": Shape(torch.exp, sympy.exp, has_shift=False),
    "sin": Shape(torch.sin, sympy.sin),
    "tanh": Shape(torch.tanh, sympy.tanh),
    "silu": Shape(torch.nn.functional.silu, lambda u: u / (1 + sympy.exp(-u))),
    "gauss": Shape(lambda u: torch.exp(-u.square()), lambda u: sympy.exp(-(u**2))),
}


@dataclass(frozen=True, slots=True)
class Formula:
    """a f(b x + c) + d, its constants rounded as they are shown."""

    name: str
    a: float
    b: float
    c: float
    d: float
    r2: float
    """Share of the curve's variance over real inputs that the rounded formula has; 1 is all."""

    def value(self, x_N: Tensor) -> Tensor:
        """The formula at these inputs, in their dtype."""
        return self.a * SHAPES[self.name].of(self.b * x_N + self.c) + self.d

    def text(self) -> str:
        """As sympy writes it."""
        x = sympy.Symbol("x")  # type: ignore[no-untyped-call]
        a, b, c, d = (_shown(value) for value in (self.a, self.b, self.c, self.d))
        return str(a * SHAPES[self.name].symbol(b * x + c) + d)


def _shown(value: float) -> sympy.Expr:
    """A constant; 0 and 1 are exact, so that sympy leaves them out."""
    return sympy.Integer(int(value)) if value in {0.0, 1.0} else sympy.Float(value, DIGITS)  # type: ignore[no-untyped-call]


def fit(curve: EdgeCurve) -> Formula:
    """The formula of an edge's curve, over (some of) its real inputs."""
    inputs_N = curve.inputs_N[:: max(1, -(-len(curve.inputs_N) // MOST_POINTS))].double()
    return fit_points(inputs_N, curve.value(inputs_N))


def fit_points(x_N: Tensor, y_N: Tensor) -> Formula:
    """The formula for points, float64. A curve that does not vary is a constant."""
    if float(y_N.var(correction=0)) <= 1e-12 * float(y_N.square().mean()):
        return Formula("constant", 0.0, 1.0, 0.0, _round(float(y_N.mean())), 1.0)
    fits = [_best_of_shape(name, shape, x_N, y_N) for name, shape in SHAPES.items()]
    best = max(formula.r2 for formula in fits)
    good = [formula for formula in fits if formula.r2 >= best - TOLERANCE]
    return min(good, key=lambda formula: (SHAPES[formula.name].constants, -formula.r2))


def _best_of_shape(name: str, shape: Shape, x_N: Tensor, y_N: Tensor) -> Formula:
    """The best constants: b and c by a grid that closes in, a and d by least squares for each pair."""
    scale, shift = 1.0, 0.0
    width_b, width_c = 4.0, 6.0
    for _ in range(ROUNDS):
        tries_b = (
            scale + torch.linspace(-width_b, width_b, TRIES).double() if shape.has_scale else torch.ones(1).double()
        )
        tries_c = (
            shift + torch.linspace(-width_c, width_c, TRIES).double() if shape.has_shift else torch.zeros(1).double()
        )
        b_M, c_M = (each.flatten() for each in torch.meshgrid(tries_b, tries_c, indexing="ij"))
        r2_M = _explained(shape.of(b_M[:, None] * x_N + c_M[:, None]), y_N)
        place = int(r2_M.argmax())
        scale, shift = float(b_M[place]), float(c_M[place])
        width_b, width_c = 2 * width_b / (TRIES - 1), 2 * width_c / (TRIES - 1)
    b, c = _round(scale), _round(shift)
    a, d = _line(shape.of(b * x_N + c), y_N)
    rounded = Formula(name, _round(a), b, c, _round(d), 0.0)
    return replace(rounded, r2=r_squared(rounded.value(x_N), y_N))


def _explained(f_MN: Tensor, y_N: Tensor) -> Tensor:
    """R2 of the best a and d for each row of values, (M,); 0 for values that do not vary or are no numbers."""
    f_MN = f_MN - f_MN.mean(1, keepdim=True)
    y_N = y_N - y_N.mean()
    r2_M = (f_MN @ y_N).square() / (f_MN.square().sum(1) * y_N.square().sum())
    return r2_M.nan_to_num(0.0, 0.0, 0.0)


def _line(f_N: Tensor, y_N: Tensor) -> tuple[float, float]:
    """a and d of the least squares of a f + d."""
    centred_N = f_N - f_N.mean()
    power = float(centred_N.square().sum())
    a = float(centred_N @ y_N) / power if power else 0.0
    return a, float(y_N.mean()) - a * float(f_N.mean())


def r_squared(found_N: Tensor, y_N: Tensor) -> float:
    """1 - residual over variance; below 0 for what is worse than the mean."""
    return 1 - float((y_N - found_N).square().sum() / (y_N - y_N.mean()).square().sum())


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
