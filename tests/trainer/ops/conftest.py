"""What the tests of kernels share."""

from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is new and not written is NaN, so that a result with a gap fails."""
    new_empty, empty_like = Tensor.new_empty, torch.empty_like

    def spoilt(tensor: Tensor) -> Tensor:
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    def spoilt_new(tensor: Tensor, *sizes: Any, **options: Any) -> Tensor:
        return spoilt(new_empty(tensor, *sizes, **options))

    def spoilt_like(tensor: Tensor, **options: Any) -> Tensor:
        return spoilt(empty_like(tensor, **options))

    monkeypatch.setattr(Tensor, "new_empty", spoilt_new)
    monkeypatch.setattr(torch, "empty_like", spoilt_like)
