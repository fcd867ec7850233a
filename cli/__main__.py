"""`python -m kanctl.cli` is the `kanctl` command, for where the console script is not on PATH."""

from .app import main

main()
