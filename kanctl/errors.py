"""The root of every error that kanctl raises on purpose; each folder derives its own few from these.

What is not here: rendering (cli/app.py) and programming mistakes, which stay ValueError and TypeError.
"""


class KanctlError(Exception):
    """Something a user or a machine caused: one message that ends with the next step.

    The message holds what was wanted, what was found and where; `next_step` says what to do, in one line.
    """

    exit_code = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.next_step = next_step


class BadInputError(KanctlError):
    """The user's words, files or values are wrong; nothing was changed."""

    exit_code = 2


class CheckFailedError(KanctlError):
    """A check did its work and found problems."""

    exit_code = 3


class NodeUnreachableError(KanctlError):
    """A node did not answer, refused the login, or showed another host key than the known one."""

    exit_code = 4


class MissingToolError(KanctlError):
    """A driver, system package or Python extra that the command needs is not installed."""

    exit_code = 5
