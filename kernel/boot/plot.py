"""A comparison as a picture: every figure as its ratio to the first kernel. The only file of the folder that draws."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import ToolMissing
from .compare import METRICS, Column


def draw(columns: Sequence[Column], target: Path) -> None:
    """Bars per figure, the first column at 1; PNG or SVG by the target's ending. Raises ToolMissing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ToolMissing("drawing the comparison needs matplotlib", "pip install 'kanctl[plot]'") from error
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(columns)
    for index, column in enumerate(columns):
        places = [row - 0.4 + height * (index + 0.5) for row in range(len(METRICS))]
        axes.barh(places, [_ratio(metric.key, column, columns[0]) for metric in METRICS], height, label=column.title)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(METRICS)), [metric.label for metric in METRICS])
    axes.invert_yaxis()
    axes.set_xlabel(f"ratio to {columns[0].title}; less is better, except for memory free")
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(target)


def _ratio(key: str, column: Column, first: Column) -> float:
    value, base = getattr(column.report, key), getattr(first.report, key)
    return value / base if value is not None and base else 0.0
