"""Training a Kolmogorov-Arnold language model on byte-level text: configuration, model, data, loop, checkpoints.

Importing this package loads nothing: neither torch nor deepspeed.
"""
