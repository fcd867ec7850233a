"""The exit codes of every kanctl command, in one place.

Errors carry their own code (kanctl/errors.py); these names are for commands that end without an error.
"""

DONE = 0
FAILED = 1
BAD_USAGE = 2
CHECK_FAILED = 3
UNREACHABLE = 4
MISSING_TOOL = 5
INTERRUPTED = 130
