"""Numerical operations, one folder each: public call, plain PyTorch reference, and kernels where they exist."""
