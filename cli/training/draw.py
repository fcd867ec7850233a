"""Pictures of a run from the numbers of `python -m kanctl.trainer.inside`. The only file of the folder that draws."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kanctl.errors import BadInputError, MissingToolError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("png", "svg")
GREY, STRONG = "0.75", "tab:blue"


def require_matplotlib() -> None:
    """Ask before any work is done. Raises MissingToolError."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingToolError("drawing a run needs matplotlib", "pip install 'kanctl[plot]'") from error
    del matplotlib


def draw_run(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """One picture a subject, each as PNG and SVG, into the folder; gives their paths. The same numbers, the same bytes.

    Raises BadInputError when the folder cannot be written.
    """
    from matplotlib import rc_context

    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in SUBJECTS.items():
            # A salt for the names inside an SVG, which are random otherwise.
            with rc_context({"svg.hashsalt": "kanctl"}):
                figure = draw(found)
                figure.suptitle(f"{found['run']}, step {found['checkpoint_step']}: {name}")
                paths += [_save(figure, folder / f"{name}.{kind}", kind) for kind in KINDS]
    except OSError as error:
        raise BadInputError(f"the pictures could not be written: {error}", "--output another folder") from error
    return paths


def _save(figure: "Figure", path: Path, kind: str) -> Path:
    partial = path.with_name(f"{path.name}.part")
    figure.savefig(partial, format=kind, metadata={"Date": None} if kind == "svg" else None, dpi=120)
    partial.replace(path)
    return path


def _panels(count: int, columns: int, *, wide: float = 4.0, high: float = 3.0) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(wide * min(count, columns), high * rows + 0.4), layout="constrained")
    return figure, [figure.add_subplot(rows, min(count, columns), place + 1) for place in range(count)]


def _nothing(text: str) -> "Figure":
    """A picture that says why there is nothing to see."""
    figure, (axes,) = _panels(1, 1, wide=6.0)
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def _draw_loss(found: Mapping[str, Any]) -> "Figure":
    curves = found["loss"]
    if not curves["train"] and not curves["validation"]:
        return _nothing("the run has told no loss yet")
    figure, (axes,) = _panels(1, 1, wide=7.0, high=4.0)
    for name, style in (("train", {"color": GREY}), ("validation", {"color": STRONG, "marker": "o", "markersize": 3})):
        points = curves[name]
        axes.plot([p["step"] for p in points], [p["loss_nats"] for p in points], label=name, **style)
    axes.set(xlabel="step", ylabel="loss, nats per token")
    axes.legend()
    return figure


def _draw_edges(found: Mapping[str, Any]) -> "Figure":
    edges = found["edges"]
    if not edges:
        return _nothing("the model has no edge layers that can be looked at alone")
    figure, panels = _panels(len(edges), 3)
    formulas = [row["formula"] for row in found.get("formulas", {}).get("edges", [])]
    for number, (axes, edge) in enumerate(zip(panels, edges, strict=True)):
        _draw_edge(axes, edge, formulas[number] if formulas else "")
    panels[0].legend(fontsize="x-small")
    return figure


def _draw_edge(axes: "Axes", edge: Mapping[str, Any], formula: str) -> None:
    limit, counts = edge["input_limit"], edge["input_counts"]
    width = 2 * limit / len(counts)
    inputs = axes.twinx()
    inputs.bar([-limit + width * (bin + 0.5) for bin in range(len(counts))], counts, width, color="0.88")
    inputs.set_yticks([])
    axes.set_zorder(inputs.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(edge["x"], edge["spline"], color=GREY, linestyle="--", linewidth=0.8, label="spline part")
    axes.plot(edge["x"], edge["silu"], color=GREY, linestyle=":", linewidth=0.8, label="SiLU part")
    axes.plot(edge["x"], edge["y"], color=STRONG, label="curve")
    axes.set_title(f"{edge['layer']}, {edge['input']} to {edge['output']}", fontsize="small")
    outside = f"; {edge['inputs_outside_share']:.1%} outside" if edge["inputs_outside_share"] else ""
    words = f"normalised input (grey: where inputs fall{outside})" + (f"\n{formula}" if formula else "")
    axes.set_xlabel(words, fontsize="small")
    axes.set_ylabel("added to the output")


def _draw_experts(found: Mapping[str, Any]) -> "Figure":
    if not found["experts"]:
        return _nothing("the model has no groves")
    figure, panels = _panels(len(found["experts"]), 2)
    for axes, grove in zip(panels, found["experts"], strict=True):
        axes.bar(range(len(grove["shares"])), grove["shares"], color=STRONG)
        axes.axhline(grove["even_share"], color="black", linewidth=0.8, label="all equal")
        axes.set_title(grove["layer"], fontsize="small")
        axes.set(xlabel="subnet", ylabel="share of choices")
    panels[0].legend(fontsize="x-small")
    return figure


def _draw_kernels(found: Mapping[str, Any]) -> "Figure":
    if not found["kernels"]:
        return _nothing("the model has no diffusion attention")
    figure, panels = _panels(len(found["kernels"]), 3)
    for axes, layer in zip(panels, found["kernels"], strict=True):
        _draw_taps(axes, layer["heads"], layer["start"])
        axes.set_title(layer["layer"], fontsize="small")
    panels[0].legend(fontsize="x-small")
    return figure


def _draw_taps(axes: "Axes", heads: Sequence[Mapping[str, Any]], start: Sequence[float]) -> None:
    back = range(len(start))
    for number, head in enumerate(heads):
        [line] = axes.plot(back, head["mean"], marker="o", markersize=3, label=f"head {number}")
        axes.fill_between(back, head["low"], head["high"], color=line.get_color(), alpha=0.15)
    axes.plot(back, start, color="black", linewidth=0.8, linestyle="--", label="at the start")
    axes.set_xticks(list(back))
    axes.set(xlabel="tokens back", ylabel="weight of the key")


SUBJECTS: dict[str, Callable[[Mapping[str, Any]], "Figure"]] = {
    "loss": _draw_loss,
    "edges": _draw_edges,
    "experts": _draw_experts,
    "kernels": _draw_kernels,
}
