"""Fragments: small files of requested kernel symbols, each with its reason. Parsing and merging are pure.

The form is described in kernel/README.md. What became of a request is verify.py's work.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .dotconfig import parse_line
from .errors import FragmentInvalid
from .version import satisfies

TAG = re.compile(r"^(Source|Kernel|Capability|Risk):\s*(.+)$")
# A value that the kernel's own reader would refuse or misread ends here, with its line.
VALUE = re.compile(r'^(y|m|n|-?\d+|0x[0-9a-fA-F]+|"[^"\\]*")$')
RISKS = ("security", "throughput", "latency", "compatibility")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One symbol that a fragment asks for, and why."""

    symbol: str
    value: str
    reason: str
    fragment: str
    line: int
    kernel: str = ""
    capabilities: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where the line stands, as editors open it."""
        return f"{self.fragment}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """One file: its subject and its requests in the file's order."""

    name: str
    summary: str
    requests: tuple[Request, ...]


def parse_fragment(name: str, text: str) -> Fragment:
    """Read a fragment; raises FragmentInvalid with every mistake in it at once."""
    blocks, mistakes = _split(text)
    header = blocks.pop(0)[1] if blocks and not blocks[0][2] else []
    requests = []
    for line, comments, raw in blocks:
        if not raw:
            mistakes.append(f"{name}:{line}: a comment that stands above no symbol")
            continue
        request, wrong = _read_request(name, line, header, comments, raw)
        mistakes += wrong
        if request is not None:
            requests.append(request)
    mistakes += _repeated(requests)
    if mistakes:
        raise FragmentInvalid(
            f"{len(mistakes)} mistakes in the kernel fragment {name}:\n  " + "\n  ".join(mistakes),
            "the form is described in kernel/README.md",
        )
    summary = " ".join(line for line in header if not TAG.match(line))
    return Fragment(name=name, summary=summary, requests=tuple(requests))


def read_fragment(path: Path) -> Fragment:
    """Read a fragment file; its name without the ending is the fragment's. Raises FragmentInvalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FragmentInvalid(f"the kernel fragment {path} cannot be read: {error}") from error
    return parse_fragment(path.name.removesuffix(".config"), text)


def merge(fragments: Iterable[Fragment], version: tuple[int, ...]) -> dict[str, Request]:
    """Symbol -> request of all fragments that apply to a kernel version, in order.

    Raises FragmentInvalid with every symbol that two fragments want differently; the same value twice is the first's.
    """
    chosen: dict[str, Request] = {}
    conflicts = []
    for fragment in fragments:
        for request in fragment.requests:
            if not satisfies(version, request.kernel):
                continue
            other = chosen.setdefault(request.symbol, request)
            if other.value != request.value:
                conflicts.append(
                    f"{request.symbol}: {other.place} wants {other.value} ({other.reason}); "
                    f"{request.place} wants {request.value} ({request.reason})"
                )
    if conflicts:
        raise FragmentInvalid(
            f"{len(conflicts)} symbols are wanted differently by two fragments:\n  " + "\n  ".join(conflicts),
            "keep one of the two, or move the symbol into fragments that no profile uses together",
        )
    return chosen


def _split(text: str) -> tuple[list[tuple[int, list[str], str]], list[str]]:
    """(line number, comments straight above, symbol line) in order; a comment block alone has an empty symbol line."""
    blocks: list[tuple[int, list[str], str]] = []
    mistakes = []
    comments: list[str] = []
    for number, raw in enumerate([*text.splitlines(), ""], start=1):
        line = raw.rstrip()
        if parse_line(line) is not None:
            blocks.append((number, comments, line))
            comments = []
        elif line.startswith("#"):
            comments.append(line.lstrip("#").strip())
        elif not line:
            if comments:
                blocks.append((number - 1, comments, ""))
            comments = []
        else:
            mistakes.append(f"line {number}: wanted CONFIG_NAME=value or a comment, found {line!r}")
    return blocks, mistakes


def _read_request(
    name: str, line: int, header: list[str], comments: list[str], raw: str
) -> tuple[Request | None, list[str]]:
    """The request of one block, or what is wrong with it."""
    parsed = parse_line(raw)
    assert parsed is not None
    symbol, value = parsed
    place = f"{name}:{line}: {symbol}"
    reason = " ".join(text for text in comments if not TAG.match(text)).strip()
    tags = [found.groups() for found in map(TAG.match, [*header, *comments]) if found]
    kernel = " and ".join(text for key, text in tags if key == "Kernel")
    risks = tuple(text for key, text in tags if key == "Risk")
    mistakes = []
    if not reason:
        mistakes.append(f"{place} has no reason above it")
    if not VALUE.match(value):
        mistakes.append(f'{place} has the value {value}; wanted y, m, n, a number or "text"')
    mistakes += [f"{place}: {text!r} is no risk; wanted one of {RISKS}" for text in risks if not text.startswith(RISKS)]
    try:
        satisfies((0,), kernel)
    except FragmentInvalid as error:
        mistakes.append(f"{place}: {error}")
    if mistakes:
        return None, mistakes
    request = Request(
        symbol=symbol,
        value=value,
        reason=reason,
        fragment=name,
        line=line,
        kernel=kernel,
        capabilities=tuple(part.strip() for key, text in tags if key == "Capability" for part in text.split(",")),
        risks=risks,
        sources=tuple(text for key, text in tags if key == "Source"),
    )
    return request, []


def _repeated(requests: Iterable[Request]) -> list[str]:
    """Symbols named twice in one file, unless their kernel conditions differ."""
    seen: dict[tuple[str, str], Request] = {}
    mistakes = []
    for request in requests:
        first = seen.setdefault((request.symbol, request.kernel), request)
        if first is not request:
            mistakes.append(f"{request.place}: {request.symbol} stands in line {first.line} already")
    return mistakes
