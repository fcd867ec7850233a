"""The node's side of kernel trials: a kernel, or boot arguments, are tried once, and kept only if they are good.

Installed by the role kernel_install to /usr/local/lib/kanctl; only Python's standard library. machine.py decides,
loaders.py speaks to boot loaders, store.py keeps the state, gate.py judges a boot, __main__.py is the command.
"""
