"""kanctl kernel: from the fleet's hardware to a measured, boot-tested, safely promoted kernel."""

from ..app import make_group

app = make_group("Ask what kernels can do, build one for this fleet, test it, install it safely.")
