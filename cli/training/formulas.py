"""The formulas of `kanctl train plot --formula` as a table."""

from collections.abc import Mapping
from typing import Any

from ..output import print_answer, print_table


def show_formulas(found: Mapping[str, Any]) -> None:
    """A row for each edge, and what the loss becomes with all formulas; nothing where none were asked for."""
    if "formulas" not in found:
        return
    formulas = found["formulas"]
    rows = [
        (
            f"{row['layer']}, {row['input']} to {row['output']}",
            row["formula"],
            f"{row['r2']:.4f}",
            f"{row['val_loss_change_nats']:+.6f}",
            f"{row['val_loss_change_without_nats']:+.6f}",
        )
        for row in formulas["edges"]
    ]
    print_table(["edge", "formula", "R2", "change of loss, nats", "and with 0 instead"], rows)
    print_answer(
        f"validation loss {formulas['val_loss_nats']:.4f} nats; with all formulas at once "
        f"{formulas['val_loss_change_with_all_nats']:+.6f}, with 0 in their places "
        f"{formulas['val_loss_change_without_all_nats']:+.6f}"
    )
