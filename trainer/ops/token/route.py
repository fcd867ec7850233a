"""Which implementation of one token's way through a block runs, and why."""

from ..route import Machine, Route, without_triton


def route_token(machine: Machine, *, dtype: str, rows: int) -> Route:
    """`triton`: small work joined to the products that read the weights. `torch`: the layers one by one."""
    plain = without_triton(machine, dtype)
    if plain is not None:
        return plain
    if rows != 1:
        return Route(implementation="torch", reason=f"{rows} rows: a product of several reads the weights once for all")
    return Route(implementation="triton", reason="one row: every kernel less is a share of the step")
