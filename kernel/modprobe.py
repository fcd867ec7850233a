"""Lines of modprobe.d, boot arguments and NVIDIA's registry dwords, read into names and values. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from .errors import FragmentInvalid

# Where modprobe looks, the strongest first: of two files with one name only the first is read.
FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
OPTION = re.compile(r'(\w+)(?:=("[^"]*"|\S*))?')
ARGUMENT = re.compile(r'(?:[^\s"]|"[^"]*")+')
# The kernel reads the first letter of a bool.
TRUE, FALSE = ("y", "yes", "on", "1"), ("n", "no", "off", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One parameter that a line of modprobe.d sets; `place` is the file, or the profile, that has the line."""

    module: str
    name: str
    value: str
    place: str = ""

    @property
    def full_name(self) -> str:
        """`nvme_core.multipath`, as it is written on the kernel's command line."""
        return f"{self.module}.{self.name}"


def read_options(files: Mapping[str, str]) -> tuple[Option, ...]:
    """The options of modprobe.d's files in the order that modprobe reads them; of one name the last takes effect.

    The same on a node: `modprobe --showconfig | grep ^options`. Source: modprobe.d(5).
    """
    chosen: dict[str, str] = {}
    for path in sorted(files, key=_strength):
        chosen.setdefault(PurePosixPath(path).name, path)
    return tuple(option for name in sorted(chosen) for option in parse_options(files[chosen[name]], chosen[name]))


def parse_options(text: str, place: str = "") -> tuple[Option, ...]:
    """The parameters of all `options` lines of a text."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split(None, 2)
        if len(words) < 3 or words[0] != "options":
            continue
        module = words[1].replace("-", "_")
        for name, value in OPTION.findall(words[2]):
            found.append(Option(module=module, name=name, value=value.strip('"'), place=place))
    return tuple(found)


def _strength(path: str) -> tuple[int, str]:
    folder = str(PurePosixPath(path).parent)
    return (FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS), path)


def split_arguments(cmdline: str) -> tuple[str, ...]:
    """The arguments of a kernel command line; spaces inside double quotes do not part them."""
    return tuple(ARGUMENT.findall(cmdline))


def argument_values(arguments: Iterable[str], name: str) -> list[str]:
    """The values that a boot argument is given, in order; `""` where it stands without one.

    Dashes and underscores are the same in names, as for the kernel.
    """
    pairs = (argument.partition("=") for argument in arguments)
    return [value.strip('"') for key, _, value in pairs if key.replace("-", "_") == name.replace("-", "_")]


def same_value(first: str, second: str) -> bool:
    """Whether two values mean the same to a parameter: N, n, 0 and off are one, and so are 1 and 0x1."""
    one, other = _plain(first), _plain(second)
    return one == other or any(one in group and other in group for group in (TRUE, FALSE))


def _plain(value: str) -> str:
    number = re.fullmatch(r"0x[0-9a-f]+", value.lower())
    return str(int(number.group(), 16)) if number else value.lower()


def read_dwords(text: str) -> dict[str, str]:
    """Name -> value of one NVreg_RegistryDwords string such as `PeerMappingOverride=1;RMForceStaticBar1=1;`."""
    parts = (part.partition("=") for part in text.strip('"').split(";") if "=" in part)
    return {name.strip(): value.strip() for name, _, value in parts}


def merge_registry_dwords(strings: Iterable[str]) -> str:
    """One NVreg_RegistryDwords string of several: the driver reads one alone, the last.

    Raises FragmentInvalid where two strings give one dword different values.
    Source: kernel-open/nvidia/nv-reg.h of NVIDIA/open-gpu-kernel-modules.
    """
    merged: dict[str, str] = {}
    for text in strings:
        for name, value in read_dwords(text).items():
            if not same_value(merged.setdefault(name, value), value):
                raise FragmentInvalid(
                    f"the registry dword {name} is wanted as {merged[name]} and as {value}", "keep one value of it"
                )
    return render_dwords(merged)


def render_dwords(values: Mapping[str, str]) -> str:
    """Dwords in the form that the driver reads."""
    return "".join(f"{name}={value};" for name, value in values.items())
