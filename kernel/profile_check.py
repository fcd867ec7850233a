"""The rules asked of a configured profile: what kernel/rules.py needs is gathered from the profile and its .config."""

from collections.abc import Collection
from pathlib import Path

from . import dotconfig
from .boot_arguments import deferred_arguments, fixed_arguments
from .kernel_setup import profile_setup
from .prepare import Prepared
from .profile import FOLDER
from .rules import Violation, check


def check_prepared(prepared: Prepared, *, force: Collection[str] = (), folder: Path = FOLDER) -> tuple[Violation, ...]:
    """The rules that a finished configuration breaks with its profile's boot arguments and module options.

    Raises FragmentInvalid where `force` names no rule.
    """
    profile, version = prepared.profile, prepared.tree.numbers
    name = profile.cmdline
    setup = profile_setup(
        profile,
        version,
        prepared.requests,
        prepared.config,
        fixed_arguments(name, version, folder) if name else (),
        switched_off=switched_off(prepared.text),
        deferred=deferred_arguments(name, folder) if name else (),
    )
    return check(setup, force=force)


def switched_off(text: str) -> set[str]:
    """The symbols that a .config has as `is not set`: visible, and off."""
    pairs = (dotconfig.parse_line(line) for line in text.splitlines())
    return {symbol for symbol, value in filter(None, pairs) if value == "n"}
