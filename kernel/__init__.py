"""Kernels for nodes: requests with reasons, verified configurations, builds, boot tests; the data that roles read too."""
