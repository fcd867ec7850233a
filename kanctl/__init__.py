"""kanctl: bare GPU machines in, a trained Kolmogorov-Arnold language model out.

This folder only mounts the top-level folders as one import package; it holds the version, the base error and the
pinned constraints, and nothing else.
"""

__version__ = "0.1.0"
