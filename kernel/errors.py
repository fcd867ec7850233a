"""Errors of the kernel pipeline that a caller would treat differently."""

from kanctl.errors import BadInputError, CheckFailedError, KanctlError, MissingToolError


class FragmentInvalid(BadInputError):
    """A fragment or profile file is malformed, contradicts another, or names what does not exist."""


class FleetInvalid(BadInputError):
    """A fleet file cannot be read, or its nodes cannot get a kernel from this machine."""


class SourceUnavailable(KanctlError):
    """The kernel's source could not be had, or is not what its checksum promises."""


class BuildFailed(KanctlError):
    """A program of the build ended with an error; what is done stays and is used again."""


class ConfigUnexplained(CheckFailedError):
    """Requested lines did not end in the configuration, and no waiver names them."""


class DeviceLost(CheckFailedError):
    """A node would lose a device with this kernel."""


class BootTestFailed(CheckFailedError):
    """A kernel did not reach init, or is not what its profile promises."""


class ToolMissing(MissingToolError):
    """A program of the build, or a Python package, is not installed; the message has the line that installs it."""
