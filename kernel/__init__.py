"""Kernel subjects: for now the boot arguments of each profile (cmdline/*.args), which the roles read as data."""
