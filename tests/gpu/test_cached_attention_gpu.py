"""Attention over a cache on a GPU against float64, at every kind of place, in each dtype, under a CUDA graph."""

import pytest
import torch

from kanctl.trainer.ops.attention import cached_attention
from kanctl.trainer.ops.attention.reference import cached_attention_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
BOUNDS = {torch.bfloat16: 5e-3, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("channels", "width"), [(64, 64), (128, 128), (72, 64)])
@pytest.mark.parametrize(("slots", "places"), [(1, (0,)), (4096, (0, 2049, 4095)), (32768, (32000,)), (100, (99, 63))])
def test_values_are_near_float64_and_the_same_twice(
    slots: int, places: tuple[int, ...], channels: int, width: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator("cuda").manual_seed(slots)
    shapes = ((len(places), 4, channels), (len(places), 4, slots, channels), (len(places), 4, slots, width))
    q, key, value = (torch.randn(shape, generator=generator, device="cuda").to(dtype) for shape in shapes)
    for row, place in enumerate(places):
        key[row, :, place + 1 :], value[row, :, place + 1 :] = 1e30, -1e30
    place = torch.tensor(places, device="cuda")
    wanted = cached_attention_reference(q.double(), key.double(), value.double(), place, channels**-0.5)
    found = cached_attention(q, key, value, place, channels**-0.5)
    assert float((found.double() - wanted).norm() / wanted.norm()) < BOUNDS[dtype]
    assert torch.equal(found, cached_attention(q, key, value, place, channels**-0.5))


def test_one_recording_serves_every_place() -> None:
    q, key, value = (torch.randn(shape, device="cuda") for shape in ((1, 4, 64), (1, 4, 512, 64), (1, 4, 512, 64)))
    place = torch.tensor([3], device="cuda")
    cached_attention(q, key, value, place, 0.125)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = cached_attention(q, key, value, place, 0.125)
    for wanted_place in (0, 200, 511):
        place.fill_(wanted_place)
        graph.replay()
        assert torch.equal(found, cached_attention(q, key, value, place, 0.125))
