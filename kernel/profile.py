"""Profiles: which fragments, boot arguments and module options make one kind of kernel; read from profiles/*.toml."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import FragmentInvalid
from .fragment import Fragment, Request, merge, read_fragment
from .version import satisfies

FOLDER = Path(__file__).parent
PREEMPT_MODES = ("none", "voluntary", "lazy", "full")
# Key -> the type that its value must have.
KEYS: Mapping[str, type] = {
    "summary": str,
    "fragments": list,
    "cmdline": str,
    "modprobe": list,
    "gpu": bool,
    "preempt": str,
    "expect_modules": list,
    "waivers": list,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOption:
    """One `options` line of modprobe.d, such as `nvme_core multipath=N`, and why."""

    option: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A symbol that may end otherwise than requested, and the reason somebody accepted."""

    symbol: str
    reason: str
    kernel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of kernel."""

    name: str
    summary: str
    fragments: tuple[Fragment, ...]
    cmdline: str = ""
    modprobe: tuple[ModuleOption, ...] = ()
    gpu: bool = True
    preempt: str = "full"
    expect_modules: tuple[str, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    def requests(self, version: tuple[int, ...], extra: Sequence[Fragment] = ()) -> dict[str, Request]:
        """Symbol -> request for a kernel version, with fragments made for a fleet. Raises FragmentInvalid."""
        return merge([*self.fragments, *extra], version)

    def waived(self, version: tuple[int, ...]) -> dict[str, Waiver]:
        """Symbol -> waiver that holds for a kernel version."""
        return {waiver.symbol: waiver for waiver in self.waivers if satisfies(version, waiver.kernel)}


def profile_names(folder: Path = FOLDER) -> list[str]:
    """The profiles that there are."""
    return sorted(path.stem for path in (folder / "profiles").glob("*.toml"))


def load_profile(name: str, folder: Path = FOLDER) -> Profile:
    """Read a profile with its fragments. Raises FragmentInvalid with every mistake of the profile's file at once."""
    path = folder / "profiles" / f"{name}.toml"
    if not path.is_file():
        raise FragmentInvalid(
            f"wanted a kernel profile, found none named {name!r}", f"one of: {', '.join(profile_names(folder))}"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise FragmentInvalid(f"{path} is not TOML: {error}") from error
    mistakes = _mistakes(table, folder)
    if mistakes:
        raise FragmentInvalid(f"{len(mistakes)} mistakes in the kernel profile {path}:\n  " + "\n  ".join(mistakes))
    return Profile(
        name=name,
        summary=table["summary"],
        fragments=tuple(read_fragment(folder / "fragments" / f"{part}.config") for part in table["fragments"]),
        cmdline=table.get("cmdline", ""),
        modprobe=tuple(ModuleOption(**row) for row in table.get("modprobe", [])),
        gpu=table.get("gpu", True),
        preempt=table.get("preempt", "full"),
        expect_modules=tuple(table.get("expect_modules", [])),
        waivers=tuple(Waiver(**row) for row in table.get("waivers", [])),
    )


def _mistakes(table: Mapping[str, object], folder: Path) -> list[str]:
    """Everything wrong with a profile's table."""
    found = [f"{key}: no such key; the keys are {', '.join(KEYS)}" for key in table if key not in KEYS]
    found += [f"{key}: missing" for key in ("summary", "fragments") if key not in table]
    found += [
        f"{key}: wanted {KEYS[key].__name__}, found {value!r}"
        for key, value in table.items()
        if key in KEYS and not isinstance(value, KEYS[key])
    ]
    if found:
        return found
    fragments, cmdline = table["fragments"], table.get("cmdline", "")
    assert isinstance(fragments, list)
    found += [
        f"fragments: there is no kernel/fragments/{part}.config"
        for part in fragments
        if not (folder / "fragments" / f"{part}.config").is_file()
    ]
    if cmdline and not (folder / "cmdline" / f"{cmdline}.args").is_file():
        found.append(f"cmdline: there is no kernel/cmdline/{cmdline}.args")
    if table.get("preempt", "full") not in PREEMPT_MODES:
        found.append(f"preempt: {table['preempt']!r} is none of {', '.join(PREEMPT_MODES)}")
    for key, wanted, optional in (
        ("modprobe", {"option", "reason"}, set()),
        ("waivers", {"symbol", "reason"}, {"kernel"}),
    ):
        found += _row_mistakes(key, table.get(key, []), wanted, optional)
    return found


def _row_mistakes(key: str, rows: object, wanted: set[str], optional: set[str]) -> list[str]:
    assert isinstance(rows, list)
    return [
        f"{key}[{number}]: wanted texts named {', '.join(sorted(wanted))}, found {row!r}"
        for number, row in enumerate(rows)
        if not isinstance(row, dict)
        or not wanted <= set(row) <= wanted | optional
        or not all(isinstance(value, str) and value for value in row.values())
    ]
