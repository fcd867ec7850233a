"""Reversible blocks: inverses, gradients of the plain form, flat memory, and the cat map's permutation."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from kanctl.trainer.model.arnold import ReversibleStack, cat_map_order
from kanctl.trainer.model.frame import Frame, one_document

WIDTH = 9


class Pair(nn.Module):
    """A block with a mixer over time that looks back, and a channel mixer."""

    def __init__(self, shared: nn.Parameter | None = None) -> None:
        super().__init__()
        self.time = nn.Linear(WIDTH, WIDTH)
        self.channel = nn.Linear(WIDTH, WIDTH)
        self.shared = (shared,)

    def mix_tokens(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        del frame
        return torch.tanh(self.time(x_BTD.to(self.time.weight.dtype)).cumsum(1))

    def mix_channels(self, x: Tensor) -> Tensor:
        out = torch.tanh(self.channel(x.to(self.channel.weight.dtype)))
        return out if self.shared[0] is None else out * self.shared[0]


def stack(depth: int, keep_every: int = 0, dtype: torch.dtype = torch.float64, shared: bool = False) -> ReversibleStack:
    torch.manual_seed(depth)
    scale = nn.Parameter(torch.rand(WIDTH, dtype=dtype)) if shared else None
    return ReversibleStack((Pair(scale) for _ in range(depth)), cat_map_order(WIDTH), keep_every).to(dtype)


def streams(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, 5, WIDTH, dtype=dtype).requires_grad_() for _ in range(2))


def plain(made: ReversibleStack, x1: Tensor, x2: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """The same blocks with ordinary autograd."""
    for block in made:
        x1, x2 = made.couple(block, x1, x2, lambda x, block=block: block.mix_tokens(x, frame))
    return x1, x2


def test_twelve_blocks_are_inverted_to_float32_rounding() -> None:
    made, frame = stack(12, dtype=torch.float32), one_document(2, 5)
    x1, x2 = streams(torch.float32)
    with torch.no_grad():
        y1, y2 = made(x1, x2, frame)
        for block in reversed(made):
            y1, y2 = made.invert(block, y1, y2, frame)
    torch.testing.assert_close(y1, x1, rtol=0, atol=1e-5)
    torch.testing.assert_close(y2, x2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("keep_every", [0, 1, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_gradients_are_those_of_plain_blocks(keep_every: int, dtype: torch.dtype, tolerance: float) -> None:
    made, frame = stack(6, keep_every, dtype, shared=True), one_document(2, 5)
    shared = [made[0].shared[0]]
    slopes = []
    for run in (lambda *x: made(*x, frame, shared), lambda *x: plain(made, *x, frame)):
        inputs = streams(dtype)
        y1, y2 = run(*inputs)
        wanted = [*inputs, *made.parameters(), *shared]
        slopes.append(torch.autograd.grad((y1 * y2).sum() + y1.square().sum(), wanted))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_hooks_on_parameters_fire_once_as_engines_expect() -> None:
    made = stack(3)
    fired = []
    for name, parameter in made.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: fired.append(name))
    y1, y2 = made(*streams(), one_document(2, 5))
    (y1 + y2).sum().backward()
    assert sorted(fired) == sorted(name for name, _ in made.named_parameters())


def saved_bytes(made: ReversibleStack) -> int:
    """What the graph keeps of activations for the backward pass."""
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made(*streams(), one_document(2, 5))
    return sum(kept.values())


def test_memory_does_not_grow_with_depth() -> None:
    sizes = [saved_bytes(stack(depth)) for depth in (2, 4, 16)]
    assert all(one == other for one, other in pairwise(sizes))
    assert saved_bytes(stack(16, keep_every=4)) == 4 * sizes[0]


def test_each_mixer_runs_twice_in_a_training_step() -> None:
    made, runs = stack(5, keep_every=2), []
    for part in made.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda *_: runs.append(1))
    y1, y2 = made(*streams(), one_document(2, 5))
    assert len(runs) == 5 * 2
    (y1 + y2).sum().backward()
    assert len(runs) == 2 * 5 * 2


def test_orders_of_channels_are_on_the_device_and_in_no_checkpoint() -> None:
    made = stack(2)
    assert {name for name, _ in made.named_buffers()} == {"order_D", "back_D", "home_D"}
    assert set(made.state_dict()) == {name for name, _ in made.named_parameters()}


def test_narrow_blocks_work_on_wide_streams() -> None:
    made = stack(4, dtype=torch.float32).bfloat16()
    x1, x2 = streams(torch.float32)
    y1, y2 = made(x1, x2, one_document(2, 5))
    assert y1.dtype == torch.float32
    (y1 + y2).sum().backward()
    assert all(weight.grad.isfinite().all() for weight in made.parameters())


def test_narrow_streams_are_refused() -> None:
    x1, x2 = streams()
    with pytest.raises(TypeError, match=r"wanted streams in float32 or float64, found torch\.bfloat16"):
        stack(1)(x1.bfloat16(), x2.bfloat16(), one_document(2, 5))


@pytest.mark.parametrize("width", [1, 2, 9, 16, 30])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (0, 0), (2, 3)])
def test_the_cat_map_is_a_permutation_that_leaves_what_is_beyond_its_square(width: int, a: int, b: int) -> None:
    order = cat_map_order(width, a, b)
    side = int(width**0.5)
    assert sorted(order) == list(range(width))
    assert order[side * side :] == list(range(side * side, width))


def test_the_cat_map_of_a_square_of_three_is_arnolds() -> None:
    order = cat_map_order(9)
    for index in range(9):
        i, j = divmod(index, 3)
        assert order[(i + j) % 3 * 3 + (i + 2 * j) % 3] == index


def test_channels_come_home_after_the_last_block() -> None:
    made = stack(5)
    for block in made:
        for weight in block.parameters():
            weight.data.zero_()
    x1, x2 = streams()
    y1, y2 = made(x1, x2, one_document(2, 5))
    assert not torch.equal(y1, x1)
    assert torch.equal(made.at_home(y1), x1)
    assert torch.equal(made.at_home(y2), x2)
