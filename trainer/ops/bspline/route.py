"""Which implementation of the edge layer's three products runs, and why. README.md has the measurements behind it."""

from dataclasses import dataclass, replace

from ..route import Machine, Route, without_triton
from . import hopper

__all__ = ["EdgeRoutes", "route_edge_linear", "route_grouped_edge_linear"]

# Up to so many tokens the weights that are live for them are fewer than all: 5 of 9 with five cells, of 17 with 13.
GATHERED_TOKENS = 1
# Rows of one token are of different groups, and read no weight twice.
GATHERED_ROWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRoutes:
    """`torch`: plain PyTorch. `slab`: features by a kernel, products by the vendor's library. `fused`: one of Triton's.

    `cuda`: one of CUDA C++ for Hopper. `gather`: one that reads the live weights alone, for a token at a time.
    """

    forward: Route
    input_gradient: Route
    weight_gradient: Route

    def by_work(self) -> dict[str, Route]:
        """The routes by the names that people read."""
        return {
            "forward": self.forward,
            "input gradient": self.input_gradient,
            "weight gradient": self.weight_gradient,
        }


def route_edge_linear(
    machine: Machine,
    *,
    features: int,
    inputs: int,
    outputs: int,
    dtype: str,
    tokens: int | None = None,
    unbuilt: str | None = None,
) -> EdgeRoutes:
    """The routes of one layer.

    Args:
        features: J, weights of an edge.
        dtype: torch's name, such as `bfloat16`.
        tokens: N; None: many.
        unbuilt: why the CUDA kernels cannot be built on this machine; None where they can.
    """
    plain = without_triton(machine, dtype)
    if plain is not None:
        return EdgeRoutes(forward=plain, input_gradient=plain, weight_gradient=plain)
    why_not = hopper.misfit(machine.capability, features, inputs, outputs, dtype) or machine.without_compiler or unbuilt
    # Slabs are 1.5 to 3 times as fast as the fused kernels at 192 -> 768 and back, and at all that is larger.
    routes = CUDA if why_not is None else _all("slab", f"the vendor's library multiplies; not cuda: {why_not}")
    if tokens is not None and tokens <= GATHERED_TOKENS:
        gather = Route(implementation="gather", reason=f"one token: 5 of each edge's {features} weights are live")
        return replace(routes, forward=gather)
    return routes


def route_grouped_edge_linear(
    machine: Machine,
    *,
    features: int,
    groups: int,
    inputs: int,
    outputs: int,
    dtype: str,
    rows: int | None = None,
    unbuilt: str | None = None,
) -> EdgeRoutes:
    """The routes of one layer of a grove's subnets.

    Args:
        features: J, weights of an edge. groups: E, subnets.
        dtype: torch's name, such as `bfloat16`.
        rows: of all groups; None: many.
        unbuilt: why the CUDA kernels cannot be built on this machine; None where they can.
    """
    plain = without_triton(machine, dtype)
    if plain is not None:
        return EdgeRoutes(forward=plain, input_gradient=plain, weight_gradient=plain)
    why_not = hopper.misfit(machine.capability, features, inputs, outputs, dtype) or machine.without_compiler or unbuilt
    at_once = f"{groups} subnets in one kernel, which asks nothing of the host for their rows"
    routes = CUDA if why_not is None else _all("fused", f"{at_once}; not cuda: {why_not}")
    if rows is not None and rows <= GATHERED_ROWS:
        gather = Route(implementation="gather", reason=f"few rows: 5 of each edge's {features} weights are live")
        return replace(routes, forward=gather)
    return routes


def _all(implementation: str, reason: str) -> EdgeRoutes:
    route = Route(implementation=implementation, reason=reason)
    return EdgeRoutes(forward=route, input_gradient=route, weight_gradient=route)


CUDA = EdgeRoutes(
    forward=Route(implementation="cuda", reason="2:4: of every four features two are zero, which takes half the steps"),
    input_gradient=Route(implementation="cuda", reason="features' gradients meet their slopes in registers"),
    weight_gradient=Route(implementation="cuda", reason="features go from registers into the tensor cores"),
)
