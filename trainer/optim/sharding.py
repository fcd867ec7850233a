"""Whole weights from the flat shards that ZeRO leaves on each rank, and back. Works for a tensor that is whole too."""

import math

import torch
import torch.distributed as dist
from torch import Tensor


def whole(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weight-shaped tensor of which `part` is the whole or this rank's flat shard; the same on every rank.

    Shards are equally long, in the order of ranks, and padded at the end, as DeepSpeed cuts a group of one weight.
    """
    numel = math.prod(shape)
    if part.numel() < numel:
        shards = part.new_empty(dist.get_world_size() * part.numel())
        dist.all_gather_into_tensor(shards, part.contiguous())
        part = shards
    return part.flatten()[:numel].view(shape)


def own_part(full: Tensor, like: Tensor) -> Tensor:
    """What of a whole weight-shaped tensor belongs to `like`, a parameter as `whole` takes; padding is zero."""
    if like.shape == full.shape:
        return full
    flat = full.flatten()
    begin = dist.get_rank() * like.numel() if like.numel() < flat.numel() else 0
    part = flat[begin : begin + like.numel()]
    return torch.nn.functional.pad(part, (0, like.numel() - part.numel()))


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, in place; the tensor itself where there is one."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value
