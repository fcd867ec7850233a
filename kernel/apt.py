"""A package state of its own: looks up and downloads packages of other suites without touching this machine's apt.

Needs no root. apt checks the suites' signatures and the packages' checksums as always; which archive to ask is the
caller's word, since the host's own sources know its mirror.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kanctl.programs import ProgramFailed, run

from .errors import SourceUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class AptState:
    """A folder that holds lists and downloads, and the one-line sources that fill it."""

    folder: Path
    sources: tuple[str, ...]

    def options(self) -> list[str]:
        """The options that keep apt out of the machine's own state."""
        return [
            *("-o", f"Dir::State::lists={self.folder}/lists"),
            *("-o", f"Dir::Cache={self.folder}"),
            *("-o", f"Dir::Etc::sourcelist={self.folder}/sources.list"),
            *("-o", "Dir::Etc::sourceparts=/dev/null"),
            # Downloads go where the caller may write, which apt's own user may not.
            *("-o", "APT::Sandbox::User="),
            *("-o", "Acquire::Languages=none"),
        ]


def refresh(state: AptState) -> None:
    """Fetch the package lists. Raises SourceUnavailable."""
    for part in ("lists/partial", "archives/partial"):
        (state.folder / part).mkdir(parents=True, exist_ok=True)
    (state.folder / "sources.list").write_text("\n".join(state.sources) + "\n")
    try:
        # `-e any`: a list that cannot be fetched is an error, not a warning about old ones.
        run(["apt-get", *state.options(), "update", "-qq", "--error-on=any"])
    except ProgramFailed as error:
        raise SourceUnavailable(
            f"the package lists of {', '.join(state.sources)} could not be fetched:\n  {error}",
            "check the network and the mirror in /etc/apt",
        ) from error


def newest(state: AptState, package: str) -> str:
    """The newest version that the state's sources offer. Raises SourceUnavailable."""
    said = run(["apt-cache", *state.options(), "madison", package])
    versions = [line.split("|")[1].strip() for line in said.splitlines() if line.count("|") >= 2]
    if not versions:
        raise SourceUnavailable(
            f"wanted the package {package}, found none in {', '.join(state.sources)}",
            "name a source tree of your own with --source, or a series that kernel/sources.toml lists",
        )
    best = versions[0]
    for version in versions[1:]:
        if is_newer(version, best):
            best = version
    return best


def is_newer(version: str, other: str) -> bool:
    """Whether one Debian version is higher than another, by dpkg's own rules."""
    try:
        run(["dpkg", "--compare-versions", version, "gt", other])
    except ProgramFailed:
        return False
    return True


def download(state: AptState, package: str, version: str, folder: Path) -> Path:
    """Fetch one package into `folder`, checked by apt. Raises SourceUnavailable."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run(["apt-get", *state.options(), "download", "-qq", f"{package}={version}"], cwd=folder)
    except ProgramFailed as error:
        raise SourceUnavailable(f"{package} {version} could not be downloaded:\n  {error}") from error
    # apt writes the colon of an epoch as %3a in file names.
    found = sorted(folder.glob(f"{package}_{version.replace(':', '%3a')}_*.deb"))
    if not found:
        raise SourceUnavailable(f"wanted {package}_{version}_*.deb in {folder} after its download, found none")
    return found[-1]


def source_line(uri: str, suite: str, components: Sequence[str], signed_by: str | None) -> str:
    """One line of a sources.list."""
    option = f"[signed-by={signed_by}] " if signed_by else ""
    return f"deb {option}{uri} {suite} {' '.join(components)}"
