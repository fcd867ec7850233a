"""Which implementation of KalmaGrove's dispatch, and of its linear subnets, runs, and why."""

from ..route import Machine, Route, without_triton

__all__ = ["route_dispatch", "route_grouped_linear"]

# Up to so many rows their experts' weights are copied out.
COPIED_ROWS = 8
# The vendor's grouped product takes rows of whole 16 bytes: so many numbers of 2 bytes.
GROUPED_MULTIPLE = 8


def route_dispatch(machine: Machine, *, dtype: str) -> Route:
    """`torch`: plain PyTorch. `triton`: a kernel each for rows of tokens and for tokens of rows."""
    kernels = Route(implementation="triton", reason="each row is read once and written once, in a fixed order")
    return without_triton(machine, dtype) or kernels


def route_grouped_linear(machine: Machine, *, inputs: int, outputs: int, dtype: str, rows: int | None = None) -> Route:
    """`grouped`: one product of the vendor's library. `copied`: weights of each row. `each`: one product an expert.

    Only `each` asks the host how many rows each expert has.
    """
    if machine.device != "cuda":
        return Route(implementation="each", reason=f"the device is {machine.device}; one grouped product needs a GPU")
    is_aligned = inputs % GROUPED_MULTIPLE == 0 and outputs % GROUPED_MULTIPLE == 0
    if dtype == "bfloat16" and is_aligned and machine.capability is not None and machine.capability >= (9, 0):
        return Route(implementation="grouped", reason="one product of the vendor's library for all experts")
    if rows is not None and rows <= COPIED_ROWS:
        return Route(implementation="copied", reason="few rows: the weights of their experts alone are read")
    wanted = f"bfloat16, multiples of {GROUPED_MULTIPLE} and compute capability 9.0"
    found = f"{dtype}, {inputs} x {outputs} and {machine.capability and '.'.join(map(str, machine.capability))}"
    return Route(implementation="each", reason=f"one grouped product needs {wanted}; found {found}")
