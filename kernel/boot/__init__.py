"""Boot a kernel in QEMU: does it reach init, is it what its profile promises, and what does it cost in instructions."""
