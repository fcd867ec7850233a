"""Filters that turn wishes about the NVIDIA module into lines of /etc/modprobe.d; pure, nothing is read or written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from ansible.errors import AnsibleFilterError

NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
VALUE = re.compile(r"^[A-Za-z0-9_.,:=/-]*$")
# /proc/driver/nvidia/params calls this one by another name than modprobe does.
SHOWN_AS = {"RestrictProfilingToAdminUsers": "RmProfilingAdminOnly"}
# Names that are often written and do nothing; modprobe itself would only log them as unknown, if at all.
NO_SUCH_OPTION = {
    "NVreg_PeerMappingOverride": "it is a registry dword: put it in nvidia_tuning_extra_registry_dwords",
    "NVreg_OpenRmEnableUnsupportedGpus": "the driver ignores it since all its GPUs are supported: leave it out",
    "NVreg_RegistryDwords": "only one such string takes effect: use nvidia_tuning_extra_registry_dwords",
}


def wanted_rows(rows: Iterable[Mapping[str, object]], traits: Iterable[str]) -> list[dict[str, str]]:
    """The rows that this node needs, as text. A row with `needs` is kept only if the node has that trait."""
    present = set(traits)
    kept = [row for row in rows if not row.get("needs") or row["needs"] in present]
    return [{key: str(value) for key, value in row.items()} for row in kept]


def checked(rows: list[dict[str, str]], what: str) -> list[dict[str, str]]:
    """Rows with one value per name. Raises AnsibleFilterError with every mistake at once."""
    seen: dict[str, dict[str, str]] = {}
    mistakes = []
    for row in rows:
        name, value = row["name"], row["value"]
        if not NAME.match(name) or not VALUE.match(value):
            mistakes.append(f"{name!r} = {value!r} is not a name and a plain value")
        if name in seen and seen[name]["value"] != value:
            mistakes.append(f"{name} is wanted as {seen[name]['value']} and as {value}")
        seen.setdefault(name, row)
    if mistakes:
        raise AnsibleFilterError(f"{what}: " + "; ".join(mistakes) + ". Next: keep one value for each name.")
    return list(seen.values())


def registry_dwords(rows: list[dict[str, str]]) -> str:
    """One NVreg_RegistryDwords value of all rows: `A=1;B=2;`. The driver reads one string, the last one given.

    Source: kernel-open/nvidia/nv-reg.h of NVIDIA/open-gpu-kernel-modules.
    """
    return "".join(f"{row['name']}={row['value']};" for row in checked(rows, "registry dwords"))


def module_options(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Options with one value each. Raises AnsibleFilterError also for names that are known to do nothing."""
    wrong = [f"{row['name']}: {NO_SUCH_OPTION[row['name']]}" for row in rows if row["name"] in NO_SUCH_OPTION]
    if wrong:
        raise AnsibleFilterError("module options: " + "; ".join(wrong) + ".")
    return checked(rows, "module options")


def options_not_loaded(rows: list[dict[str, str]], dwords: str, params: str) -> list[str]:
    """The options that /proc/driver/nvidia/params shows with another value than the wanted one.

    The file names them without `NVreg_`; an option that is not in it cannot be read back and is left out here.
    """
    shown = dict(re.findall(r"^(\w+): *(.*?) *$", params, flags=re.MULTILINE))
    names = {row["name"].removeprefix("NVreg_"): row["value"] for row in rows if row["module"] == "nvidia"}
    wanted = {SHOWN_AS.get(name, name): value for name, value in names.items()}
    if dwords:
        wanted["RegistryDwords"] = dwords
    return [f"{name}={value}" for name, value in wanted.items() if shown.get(name, value).strip('"') != value]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Filter name -> function."""
        return {
            "wanted_rows": wanted_rows,
            "registry_dwords": registry_dwords,
            "module_options": module_options,
            "options_not_loaded": options_not_loaded,
        }
