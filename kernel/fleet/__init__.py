"""From the devices of a fleet to the modules that its kernel needs, and to the promise of what no node would lose."""
