"""A model and the text that it is looked at with: its loss as it is, and with formulas for its edges."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model import KanLM, next_token_loss
from .edges import EdgeCurve, rounded
from .formula import Formula, fit
from .replace import Replacement, replaced

BATCH = 8


class Look:
    """Letters: W windows, T tokens."""

    def __init__(self, model: KanLM, windows_WT: Tensor) -> None:
        self._model, self._windows_WT = model, windows_WT

    @torch.inference_mode()
    def loss_nats(self) -> float:
        """Mean loss of the windows' tokens."""
        total = 0.0
        for tokens_BT in torch.split(self._windows_WT, BATCH):
            total += next_token_loss(self._model(tokens_BT[:, :-1]), tokens_BT[:, 1:]).item() * len(tokens_BT)
        return total / len(self._windows_WT)

    def formulas(self, curves: Sequence[EdgeCurve], say: Callable[[str], None]) -> dict[str, object]:
        """A formula for each curve, and the change of the loss with it, with all of them, and with nothing instead."""
        found = []
        for number, curve in enumerate(curves, 1):
            found.append(fit(curve))
            say(f"formula {number} of {len(curves)}: {found[-1].text()}")
        before = self.loss_nats()
        rows = [self._row(curve, formula, before) for curve, formula in zip(curves, found, strict=True)]
        pairs = [(curve, formula.value) for curve, formula in zip(curves, found, strict=True)]
        return {
            "edges": rows,
            "val_loss_nats": rounded(before),
            "val_loss_change_with_all_nats": rounded(self._loss_with(pairs) - before),
            "val_loss_change_without_all_nats": rounded(
                self._loss_with([(c, torch.zeros_like) for c in curves]) - before
            ),
        }

    def _row(self, curve: EdgeCurve, formula: Formula, before: float) -> dict[str, object]:
        edge = curve.edge
        return {
            "layer": edge.layer, "input": edge.input, "output": edge.output, "formula": formula.text(),
            "r2": rounded(formula.r2),
            "val_loss_change_nats": rounded(self._loss_with([(curve, formula.value)]) - before),
            "val_loss_change_without_nats": rounded(self._loss_with([(curve, torch.zeros_like)]) - before),
        }  # fmt: skip

    def _loss_with(self, replacements: Sequence[Replacement]) -> float:
        with replaced(self._model, replacements):
            return self.loss_nats()
