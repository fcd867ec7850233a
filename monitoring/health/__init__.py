"""Host health: a probe collects facts on the node, pure functions judge them. catalog.py lists every check."""
