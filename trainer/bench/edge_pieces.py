"""Each of the edge layer's GPU implementations as a whole layer, so that a benchmark can time it by itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..ops.bspline import SplineGrid, slab

Forward = Callable[[Tensor, Tensor, SplineGrid], Tensor]
InputGradient = Callable[[Tensor, Tensor, Tensor, SplineGrid], Tensor]
WeightGradient = Callable[[Tensor, Tensor, SplineGrid], Tensor]


def _slab() -> tuple[Forward, InputGradient, WeightGradient]:
    from ..ops.bspline import launch

    def forward(x: Tensor, weight: Tensor, grid: SplineGrid) -> Tensor:
        return slab.forward(x, weight, lambda x: launch.expand(x, grid))

    def input_gradient(x: Tensor, weight: Tensor, grad: Tensor, grid: SplineGrid) -> Tensor:
        return slab.input_gradient(x, weight, grad, lambda x, part, out: launch.contract(x, part, out, grid))

    def weight_gradient(x: Tensor, grad: Tensor, grid: SplineGrid) -> Tensor:
        return slab.weight_gradient(x, grad, grid.bases + 1, lambda x: launch.expand(x, grid))

    return forward, input_gradient, weight_gradient


def _fused() -> tuple[Forward, InputGradient, WeightGradient]:
    from ..ops.bspline import launch

    return launch.forward, launch.input_gradient, launch.weight_gradient


def _cuda() -> tuple[Forward, InputGradient, WeightGradient]:
    from ..ops.bspline import hopper

    def forward(x: Tensor, weight: Tensor, grid: SplineGrid) -> Tensor:
        if (why := hopper.unbuilt()) is not None:
            raise RuntimeError(f"the CUDA kernels do not run: {why}")
        return hopper.forward(x, weight, grid.limit)

    def input_gradient(x: Tensor, weight: Tensor, grad: Tensor, grid: SplineGrid) -> Tensor:
        return hopper.input_gradient(x, weight, grad, grid.limit)

    def weight_gradient(x: Tensor, grad: Tensor, grid: SplineGrid) -> Tensor:
        return hopper.weight_gradient(x, grad, grid.limit)

    return forward, input_gradient, weight_gradient


def _cuda_and_slab() -> tuple[Forward, InputGradient, WeightGradient]:
    forward, input_gradient, _ = _cuda()
    return forward, input_gradient, _slab()[2]


# Imported when asked for: they need Triton, and the last a compiler.
PIECES: dict[str, Callable[[], tuple[Forward, InputGradient, WeightGradient]]] = {
    "ours: slab": _slab,
    "ours: fused": _fused,
    "ours: cuda": _cuda,
    "ours: cuda, the weight's gradient by slabs": _cuda_and_slab,
}


# Those made of the CUDA kernels.
OF_CUDA = {name for name in PIECES if name.startswith("ours: cuda")}


def is_for(name: str, grid: SplineGrid, inputs: int, outputs: int) -> bool:
    """Whether an implementation serves such a layer on the GPU here in bfloat16; any other way does."""
    from ..ops.bspline import hopper

    sizes = (grid.bases + 1, inputs, outputs, "bfloat16")
    return name not in OF_CUDA or hopper.misfit(torch.cuda.get_device_capability(), *sizes) is None


def made_of(name: str, grid: SplineGrid) -> Callable[[Tensor, Tensor], Tensor]:
    """A differentiable layer of one implementation's three products."""
    outputs, of_inputs, of_weight = PIECES[name]()

    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return outputs(x, weight, grid)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
            x, weight = ctx.saved_tensors
            return of_inputs(x, weight, grads[0], grid), of_weight(x, grads[0], grid)

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = Layer.apply(x, weight)  # type: ignore[no-untyped-call]
        return y

    return layer
