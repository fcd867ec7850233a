"""Pictures of a run: the same bytes for the same numbers, and words where there is nothing to draw."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from kanctl.cli.training.draw import SUBJECTS, draw_run, require_matplotlib
from kanctl.errors import BadInputError, MissingToolError

EDGE = {
    "layer": "blocks.0.channel.enter", "input": 1, "output": 2, "strength": 0.5, "x": [-3.0, 0.0, 3.0],
    "y": [0.1, 0.0, 2.0], "spline": [0.1, 0.0, 0.5], "silu": [0.0, 0.0, 1.5], "input_counts": [1, 5, 2],
    "input_limit": 3.0, "inputs_outside_share": 0.01,
}  # fmt: skip
FOUND: dict[str, Any] = {
    "run": "r", "checkpoint_step": 4, "tokens_read": 10,
    "loss": {"train": [{"step": 1, "loss_nats": 5.0}], "validation": [{"step": 1, "loss_nats": 4.0}]},
    "edges": [EDGE, EDGE],
    "experts": [{"layer": "blocks.0.channel", "shares": [0.25, 0.75], "even_share": 0.5}],
    "kernels": [
        {"layer": "b", "heads": [{"mean": [0.9, 0.1], "low": [0.8, 0.0], "high": [1.0, 0.2]}], "start": [1, 0]}
    ],
    "formulas": {"edges": [{"formula": "0.5*x"}, {"formula": "sin(x)"}]},
}  # fmt: skip
NOTHING: dict[str, Any] = {
    "run": "r", "checkpoint_step": 4, "loss": {"train": [], "validation": []},
    "edges": [], "experts": [], "kernels": [],
}  # fmt: skip


@pytest.mark.parametrize("found", [FOUND, NOTHING])
def test_each_subject_is_drawn_twice_and_the_same_numbers_give_the_same_bytes(
    tmp_path: Path, found: dict[str, Any]
) -> None:
    first = draw_run(found, tmp_path / "one")
    second = draw_run(found, tmp_path / "deep" / "two")
    assert [path.name for path in first] == [f"{name}.{kind}" for name in SUBJECTS for kind in ("png", "svg")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_drawn_is_said_in_the_picture(tmp_path: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):
        draw_run(FOUND, tmp_path)
    edges = (tmp_path / "edges.svg").read_text()
    assert "sin(x)" in edges
    assert "blocks.0.channel.enter, 1 to 2" in edges
    assert "1.0% outside" in edges
    assert "all equal" in (tmp_path / "experts.svg").read_text()
    assert "at the start" in (tmp_path / "kernels.svg").read_text()


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="could not be written") as refused:
        draw_run(NOTHING, tmp_path / "file")
    assert "--output" in refused.value.next_step


def test_without_matplotlib_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingToolError) as refused:
        require_matplotlib()
    assert "kanctl[plot]" in refused.value.next_step
