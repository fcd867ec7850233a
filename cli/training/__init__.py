"""Training over the cluster: where runs lie (place), starting them (launch), and what they are doing (runs, follow)."""
