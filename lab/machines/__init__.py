"""The lab's second backend: QEMU machines with a disk, GRUB and a kernel of their own, for work on the kernel itself.

machines.py brings them up and takes them down, power.py cuts and restores their power; the other files know one thing
each: the disk image, the identity handed to a machine, QEMU's command line, the state on disk, the inventory.
"""
