"""Benchmarks: each a module of its own that builds, checks, times and writes JSON; results lie beside them."""
