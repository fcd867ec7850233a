"""How long a piece of work takes and how much memory it needs, on a GPU by its own clock, else by the host's.

A time is the median of many runs after a warm-up. Memory is the peak beyond what was there before. A GPU at its limit
of power runs the more slowly the hotter it is: what is to be compared closely is timed in turn with what it is compared
with.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from .group import Ceilings

# Runs last until so much time has passed, within the limits.
SECONDS = 0.3
LEAST, MOST = 5, 200
# Blocks of runs of what is timed in turn.
BLOCKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one run."""

    ms: float
    peak_mb: float | None
    """Megabytes (10^6 bytes) at the peak beyond what was allocated before the run; None without a GPU."""
    baseline_ms: float | None = None
    """Of one run of the baseline, where it was timed in turn with this."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Two pieces of work: forward alone, and forward and backward."""

    forward: Callable[[], Any]
    both: Callable[[], Any]


def measure(
    run: Callable[[], Any],
    *,
    graph: bool = False,
    pick: Callable[[Sequence[float]], float] = median,
    baseline: Callable[[], Any] | None = None,
) -> Cost:
    """The cost of `run`, whose result is dropped.

    Args:
        graph: as a CUDA graph, which leaves out what the host needs to start the kernels; ignored without a GPU.
        pick: which of the runs' times is told.
        baseline: timed in turn with `run`.
    """
    runs = [run] if baseline is None else [run, baseline]
    if not torch.cuda.is_available():
        return Cost(**_told(pick, [partial(_host_ms, each) for each in runs]), peak_mb=None)
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    peak_mb = (torch.cuda.max_memory_allocated() - before) / 1e6
    timed = [_captured(each) if graph else each for each in runs]
    return Cost(**_told(pick, [partial(_device_ms, each) for each in timed]), peak_mb=peak_mb)


def measure_ceilings() -> Ceilings:
    """What the GPU here reaches with a large product and with a large copy, at best.

    At best, since a GPU that large products have heated runs them more slowly than it did a case before.
    """
    size = 8192
    a, b, out = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    product_ms = measure(lambda: torch.mm(a, b, out=out), pick=min).ms
    x = torch.randn(1 << 28, device="cuda")
    y = torch.empty_like(x)
    copy_ms = measure(lambda: y.copy_(x), pick=min).ms
    return Ceilings(flops_per_s=2e3 * size**3 / product_ms, bytes_per_s=2e3 * x.numel() * x.element_size() / copy_ms)


def measure_gradients(
    call: Callable[[], Tensor],
    wanted: Sequence[Tensor],
    grad: Tensor,
    *,
    graph: bool = False,
    baseline: Runs | None = None,
) -> dict[str, Any]:
    """The part of a row that is measured: `call` without gradients, then with those of `wanted` for `grad`.

    What is beyond inputs and results leaves out the gradients, and an output of the size of `grad`. A baseline is timed
    in turn, and its times are in the row.
    """
    with torch.no_grad():
        forward = measure(call, graph=graph, baseline=baseline.forward if baseline else None)
    both = measure(
        lambda: torch.autograd.grad(call(), wanted, grad), graph=graph, baseline=baseline.both if baseline else None
    )
    results_mb = sum(tensor.numel() * tensor.element_size() for tensor in (*wanted, grad)) / 1e6
    extra_mb = None if both.peak_mb is None else both.peak_mb - results_mb
    beside = {"baseline_forward_ms": forward.baseline_ms, "baseline_both_ms": both.baseline_ms} if baseline else {}
    return {"forward_ms": forward.ms, "both_ms": both.ms, "extra_mb": extra_mb, **beside}


def _told(pick: Callable[[Sequence[float]], float], each: Sequence[Callable[[], float]]) -> dict[str, float]:
    """The times of a run, and of the baseline if it is there, as Cost names them."""
    return dict(zip(("ms", "baseline_ms"), map(pick, _repeat(each)), strict=False))


def _repeat(each: Sequence[Callable[[], float]]) -> list[list[float]]:
    """Times of each, a block of runs after the other, so that each runs at the clock that its own power allows."""
    times: list[list[float]] = [[] for _ in each]
    for _ in range(BLOCKS if len(each) > 1 else 1):
        for once, found in zip(each, times, strict=True):
            found.extend(_block(once))
    return times


def _block(once: Callable[[], float]) -> list[float]:
    end_s = time.monotonic() + SECONDS
    once()
    times: list[float] = []
    while len(times) < LEAST or (time.monotonic() < end_s and len(times) < MOST):
        times.append(once())
    return times


def _host_ms(run: Callable[[], Any]) -> float:
    begin_s = time.perf_counter()
    run()
    return (time.perf_counter() - begin_s) * 1e3


def _device_ms(run: Callable[[], Any]) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _captured(run: Callable[[], Any]) -> Callable[[], Any]:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
