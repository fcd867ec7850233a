"""Kernels for nodes: requests with reasons, verified configurations, builds, boot tests; and the data that roles read."""
