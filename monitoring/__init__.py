"""What a node and its GPUs are doing (samples), and whether a node is fit to train (health)."""
