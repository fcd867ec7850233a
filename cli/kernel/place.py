"""Where kernels are cached and built on this machine, and which archives offer their sources."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

import kanctl
from kanctl.errors import BadInputError
from kanctl.kernel import apt
from kanctl.kernel.source import SourceTree, fetch, open_tree
from kanctl.kernel.stock import StockKernel, fetch_stock
from kanctl.lab.apt_sources import Source, read_release, read_sources

from ..context import user_data_dir
from ..output import print_note

DEFAULT_SERIES = "6.12"


def cache_dir() -> Path:
    """Sources and reference images: shared by all users for root, in the user's cache otherwise."""
    if os.geteuid() == 0:
        return Path("/var/cache/kanctl/kernel")
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "kanctl" / "kernel"


def work_dir(profile: str, version: str) -> Path:
    """Where one profile of one kernel version is configured and built."""
    return user_data_dir() / "kernels" / f"{profile}-{version}"


def source_table() -> dict[str, dict[str, dict[str, list[str]]]]:
    """Distribution -> series -> suites, from kernel/sources.toml."""
    return tomllib.loads((Path(kanctl.__file__).parent / "kernel" / "sources.toml").read_text())


def apt_state(series: str) -> apt.AptState:
    """A package state that offers a series, on the mirror that this machine uses. Raises BadInputError."""
    release = read_release()
    table = source_table().get(release.distribution, {})
    if series not in table:
        raise BadInputError(
            f"{release.distribution} offers no kernel source of the series {series} that kanctl knows",
            f"one of: {', '.join(name for name in table if name[0].isdigit())}; or --source with an unpacked tree",
        )
    row = table[series]
    # The machine's own release comes first: its compiler built those images, and it will build ours.
    suites = [suite for suite in row["suites"] if suite.startswith(release.codename)] or row["suites"]
    lines = tuple(source_lines(read_sources(release), suites, row.get("components", ["main"])))
    return apt.AptState(folder=cache_dir() / "apt" / series, sources=lines)


def source_lines(own: Sequence[Source], suites: Sequence[str], components: Sequence[str]) -> list[str]:
    """One-line sources of other suites, on the mirrors and with the keys of the machine's own sources."""
    security = next((source for source in own if source.suite.endswith("-security")), None)
    main = next(source for source in own if not source.suite.endswith("-security"))
    lines = []
    for suite in suites:
        mirror = (security or main) if suite.endswith("-security") else main
        lines.append(apt.source_line(mirror.uri, suite, components, mirror.signed_by))
    return lines


def source_tree(given: str | None, *, kconfig_only: bool = False) -> SourceTree:
    """The tree that `--source` names: a folder, a series such as 6.12, or the default series."""
    text = given or DEFAULT_SERIES
    if "/" in text or Path(text).is_dir():
        return open_tree(Path(text).expanduser())
    return fetch(text, cache=cache_dir(), state=apt_state(text), kconfig_only=kconfig_only, report=print_note)


def stock_kernel(series: str) -> StockKernel:
    """The distribution's own image of a series."""
    return fetch_stock(series, cache=cache_dir(), state=apt_state(series), report=print_note)
