"""Kernels for nodes: requests with reasons, verified configurations, builds, boot tests; and data that roles read."""
