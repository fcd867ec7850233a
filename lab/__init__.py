"""The virtual cluster: nodes in systemd-nspawn containers on this machine, reached over SSH like real ones.

The folder machines/ is the other backend, QEMU; backends.py knows which of the two a lab has. For containers,
containers.py brings a lab up and takes it down; the other files know one thing each: the root file system, the files
put into it, the network, cgroups, processes, mounts, the state on disk, and the inventory written out.
"""
