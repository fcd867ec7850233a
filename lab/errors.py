"""What can go wrong with a virtual cluster, as far as a caller would treat it differently."""

from kanctl.errors import BadInputError, KanctlError, MissingToolError


class LabError(KanctlError):
    """The lab could not be brought to the state asked for."""


class LabSpecInvalid(BadInputError):
    """The lab that was asked for cannot exist: a bad name, a bad count, hardware for a node it has not."""


class LabMissing(LabError):
    """There is no lab of that name."""


# A system package that the lab needs is not installed, or this machine's kind of system is not supported. No class of
# its own: nobody treats it differently from a tool that is missing elsewhere.
LabToolsMissing = MissingToolError
