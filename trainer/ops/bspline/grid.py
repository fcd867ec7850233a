"""The grid of one edge layer's splines: how many cells, and how far they reach."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SplineGrid:
    """`cells` equal cells (G >= 1) on [-limit, limit]; uniform cubic splines on it have G + 3 bases."""

    cells: int = 5
    limit: float = 3.0

    def __post_init__(self) -> None:
        if self.cells < 1 or not 0.0 < self.limit < float("inf"):
            raise ValueError(f"wanted cells >= 1 and a finite limit > 0, found {self.cells} and {self.limit}")

    @property
    def bases(self) -> int:
        """K, the spline coefficients of one edge."""
        return self.cells + 3

    @property
    def cells_per_unit(self) -> float:
        """Cells per unit of input: the derivative of the grid coordinate u."""
        return self.cells / (2 * self.limit)
