"""What a grove's choice is made of, in one hand."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """A grove's selectors, gates and offsets. Letters: E experts, r selector rank, D width."""

    selector_ErD: Tensor
    gate_ED: Tensor
    bias_E: Tensor
    ticks_E: Tensor
    """int64: offsets in steps of `rate`."""
    rate: float
    active: int
    least: float
    """The least sum of scores that shares are taken of."""
