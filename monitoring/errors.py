"""What can go wrong while measuring; a value that a GPU does not have is None and no error."""

from kanctl.errors import BadInputError, KanctlError, MissingToolError


class NvmlUnavailable(MissingToolError):
    """The node has GPUs but they could not be asked: no driver, another driver than library, no Python binding."""


class SampleInvalid(KanctlError):
    """A line that should be a sample is none: another program's output, or another version's sample."""


class FactsInvalid(KanctlError):
    """The answer of a health probe is not what the checks need."""


class ExporterPortTaken(KanctlError):
    """The exporter cannot listen where it was told to."""


class UnknownCheck(BadInputError):
    """A name given to --only is no check's."""
