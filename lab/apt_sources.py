"""Which package sources of this machine a node can use: only the distribution's own, in one-line form.

Vendors' sources are left out: their keys and packages have no place in a bare node.
"""

from dataclasses import dataclass
from pathlib import Path

from kanctl.errors import MissingToolError

SUPPORTED = ("debian", "ubuntu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The host's distribution, from /etc/os-release."""

    distribution: str
    codename: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One line of an apt source."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None

    def to_line(self) -> str:
        """The source in apt's one-line form."""
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.uri} {self.suite} {' '.join(self.components)}"


def read_release(os_release: Path = Path("/etc/os-release")) -> Release:
    """The host's distribution. Raises MissingToolError where no node can be built from it."""
    text = os_release.read_text() if os_release.is_file() else ""
    values = {
        key.strip(): value.strip().strip("\"'") for key, _, value in (line.partition("=") for line in text.splitlines())
    }
    release = Release(distribution=values.get("ID", ""), codename=values.get("VERSION_CODENAME", ""))
    if release.distribution not in SUPPORTED or not release.codename:
        raise MissingToolError(
            f"wanted a Debian or Ubuntu machine to take packages from, found {values.get('PRETTY_NAME', 'neither')}",
            "run the lab on Debian or Ubuntu (a virtual machine will do)",
        )
    return release


def read_sources(release: Release, apt_dir: Path = Path("/etc/apt")) -> tuple[Source, ...]:
    """The host's own sources for its release, in the files' order. Raises MissingToolError when there are none."""
    found: list[Source] = []
    for path in [apt_dir / "sources.list", *sorted((apt_dir / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix == ".list":
            found += parse_one_line(path.read_text())
        elif path.is_file() and path.suffix == ".sources":
            found += parse_deb822(path.read_text())
    own = tuple(source for source in found if is_own(source, release))
    if not any(source.suite == release.codename for source in own):
        raise MissingToolError(
            f"wanted {release.distribution}'s own source for {release.codename} in {apt_dir}, found none",
            f"add it to {apt_dir}/sources.list, then apt-get update",
        )
    return own


def is_own(source: Source, release: Release) -> bool:
    """Whether the source is the distribution's: its suites, its components, its key."""
    suites = {release.codename, f"{release.codename}-updates", f"{release.codename}-security"}
    own_key = source.signed_by is None or Path(source.signed_by).stem == f"{release.distribution}-archive-keyring"
    return source.suite in suites and "main" in source.components and own_key


def parse_one_line(text: str) -> list[Source]:
    """Sources of the classic form `deb [options] uri suite component...`."""
    sources = []
    for raw in text.splitlines():
        words = raw.partition("#")[0].replace("[", " [ ").replace("]", " ] ").split()
        if not words or words[0] != "deb":
            continue
        options: list[str] = []
        if words[1:2] == ["["] and "]" in words:
            end = words.index("]")
            options, words = words[2:end], ["deb", *words[end + 1 :]]
        if len(words) >= 4:
            signed_by = [word.removeprefix("signed-by=") for word in options if word.startswith("signed-by=")]
            sources.append(
                Source(
                    uri=words[1],
                    suite=words[2],
                    components=tuple(words[3:]),
                    signed_by=signed_by[0] if signed_by else None,
                )
            )
    return sources


def parse_deb822(text: str) -> list[Source]:
    """Sources of the form with `Types:`, `URIs:`, `Suites:`, `Components:` in paragraphs. See sources.list(5)."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    paragraphs = [part for part in "\n".join(line.rstrip() for line in lines).split("\n\n") if part.strip()]
    return [source for paragraph in paragraphs for source in _parse_paragraph(paragraph)]


def _parse_paragraph(paragraph: str) -> list[Source]:
    fields: dict[str, str] = {}
    key = ""
    for line in paragraph.splitlines():
        if line[:1].isspace():
            fields[key] = f"{fields.get(key, '')}\n{line.strip()}"
        elif line:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            fields[key] = value.strip()
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {"no", "false"}:
        return []
    # A key pasted into the file cannot be named on one line; the distribution's own key has a file.
    signed_by = fields.get("signed-by")
    return [
        Source(uri=uri, suite=suite, components=tuple(fields.get("components", "").split()), signed_by=signed_by)
        for uri in fields.get("uris", "").split()
        for suite in fields.get("suites", "").split()
    ]


def kept_apt_options(dump: str) -> tuple[str, ...]:
    """The lines of `apt-config dump` that a node on this machine's network needs as well: proxies, time-outs, dates."""
    wanted = ("acquire::check-", "acquire::retries", "acquire::forceipv4", "acquire::http::", "acquire::https::")
    refused = ("cainfo", "caption", "sslcert", "sslkey", "proxy-auto-detect")
    return tuple(
        line
        for line in dump.splitlines()
        if line.lower().startswith(wanted)
        and not any(word in line.lower() for word in refused)
        and not line.rstrip().endswith('"";')
    )
