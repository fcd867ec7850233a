"""Read and write the lines of a kernel .config. Pure; `n` and absent are the same thing here, as for the kernel."""

import hashlib
import re
from collections.abc import Mapping

SET = re.compile(r"^(CONFIG_[A-Za-z0-9_]+)=(.*)$")
UNSET = re.compile(r"^# (CONFIG_[A-Za-z0-9_]+) is not set$")


def parse_line(line: str) -> tuple[str, str] | None:
    """(symbol, value) of one line, with `n` for a symbol that is not set; None for any other line.

    Strings keep their quotes, so that `"6"` and `6` stay different values.
    """
    found = SET.match(line)
    if found:
        return found.group(1), found.group(2)
    found = UNSET.match(line)
    return (found.group(1), "n") if found else None


def parse(text: str) -> dict[str, str]:
    """Symbol -> value of a whole .config, without the symbols that are not set."""
    pairs = (parse_line(line) for line in text.splitlines())
    return {symbol: value for symbol, value in filter(None, pairs) if value != "n"}


def render_line(symbol: str, value: str) -> str:
    """One line in the form that the kernel's tools read."""
    return f"# {symbol} is not set" if value == "n" else f"{symbol}={value}"


def render(values: Mapping[str, str]) -> str:
    """All lines in the order given."""
    return "".join(f"{render_line(symbol, value)}\n" for symbol, value in values.items())


def digest(text: str) -> str:
    """SHA-256 of a .config's text: what `zcat /proc/config.gz | sha256sum` prints on the running kernel."""
    return hashlib.sha256(text.encode()).hexdigest()
