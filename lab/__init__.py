"""The virtual cluster: nodes in systemd-nspawn containers on this machine, reached over SSH like real ones.

containers.py brings a lab up and takes it down; the other files know one thing each: the root file system, the files
put into it, the network, cgroups, processes, mounts, the state on disk, and the inventory written out.
"""
