"""Which variables an inventory may hold, and what each may be: kanctl's own, Ansible's for the connection, the roles'.

Names that begin with `site_` are the team's own and are not checked.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path

from .checks import LIST, Check, Variable, address, is_template, own_file, text, whole_number
from .errors import Mistake
from .role_variables import role_variables
from .yaml_lines import Entry, Opaque, entries, items

OWN_PREFIX = "site_"
NIC_KINDS = ("ethernet", "infiniband")


def known_variables(roles_dir: Path | None) -> dict[str, Variable]:
    """Every variable that may stand in an inventory: the tables below and the roles' argument specs."""
    known = {**_KANCTL, **_ANSIBLE}
    if roles_dir is None:
        return known
    recorded = Variable(check=_recorded_hardware(roles_dir.parent / "recorded"), may_be_template=False)
    return {**known, "kanctl_recorded_hardware": recorded, **role_variables(roles_dir)}


def check_variable(name: str, value: object, known: Mapping[str, Variable]) -> str | None:
    """What is wrong with a variable, None when nothing is; items of a list are find_mistakes' work."""
    if name.startswith(OWN_PREFIX):
        return None
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"the nearest known name is {near[0]}" if near else f"names of your own begin with {OWN_PREFIX}"
        return f"unknown variable {name}; {hint}"
    if isinstance(value, Opaque):
        return None if known[name].may_be_template else f"{name}: wanted a plain value, found one only Ansible can read"
    if is_template(value):
        return None if known[name].may_be_template else f"{name}: wanted a plain value, found the template {value!r}"
    wanted = known[name].check(value)
    return f"{name}: wanted {wanted}, found {value!r}" if wanted else None


def find_mistakes(name: str, entry: Entry, known: Mapping[str, Variable]) -> Iterator[Mistake]:
    """Every mistake in a variable and in the items of a list, each at its own line."""
    problem = check_variable(name, entry.value, known)
    if problem:
        yield entry.mistake(problem)
    elif name in known and (keys := known[name].item_keys) is not None:
        for item in items(entry):
            yield from _item_mistakes(name, item, keys, known[name])


def _item_mistakes(name: str, item: Entry, keys: Mapping[str, Check], variable: Variable) -> Iterator[Mistake]:
    if not isinstance(item.value, dict):
        if not (variable.may_be_template and is_template(item.value)):
            yield item.mistake(f"{name}: wanted an item {{{', '.join(keys)}}}, found {item.value!r}")
        return
    found = entries(item)
    strange = [key for key in found if key not in keys]
    for key in strange:
        near = difflib.get_close_matches(key, keys, n=1)
        hint = f"; the nearest is {near[0]}" if near else ""
        yield found[key].mistake(f"{name}: {key} is none of {', '.join(keys)}{hint}")
    # A strange key is most likely the missing one misspelt.
    for key in [] if strange else [key for key in variable.required_keys if key not in found]:
        yield item.mistake(f"{name}: wanted {key} in every item, found {', '.join(found) or 'nothing'}")
    for key, below in found.items():
        if key in keys and not (variable.may_be_template and (is_template(below.value) or below.value is None)):
            wanted = keys[key](below.value)
            if wanted:
                yield below.mistake(f"{name}: wanted {key} as {wanted}, found {below.value!r}")


def _recorded_hardware(folder: Path) -> Check:
    def check(value: object) -> str | None:
        names = sorted(path.stem for path in folder.glob("*.yml"))
        return None if value in names else f"the name of a recorded machine: {', '.join(names) or 'there is none'}"

    return check


_GPU_KEYS: dict[str, Check] = {
    "model": text(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}", "a model name such as NVIDIA H200"),
    "count": whole_number(" (GPUs)", 1, 64),
    "memory_gib": whole_number(" GiB of one GPU, without a unit, such as 141", 1, 4096),
}
_NIC_KEYS: dict[str, Check] = {
    "name": text(r"[A-Za-z0-9_.-]{1,15}", "an interface name such as eth0"),
    "speed_gbps": whole_number(" Gbit/s, without a unit, such as 400", 1, 10_000),
    "kind": lambda value: None if value in NIC_KINDS else " or ".join(NIC_KINDS),
}

_NAME_TEXT = "letters, digits and hyphens, at most 63"
_KANCTL: dict[str, Variable] = {
    "kanctl_cluster_name": Variable(check=text(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", _NAME_TEXT), may_be_template=False),
    "kanctl_shared_dir": Variable(
        check=text(
            r"(/(?!\.\.?(/|$))[A-Za-z0-9_.-]+)+/?", "an absolute path of letters, digits and _./-, not / and without .."
        ),
        may_be_template=False,
    ),
    "kanctl_known_hosts_file": Variable(check=own_file, may_be_template=False),
    "kanctl_gpus": Variable(check=LIST, may_be_template=False, item_keys=_GPU_KEYS, required_keys=("model",)),
    "kanctl_nics": Variable(check=LIST, may_be_template=False, item_keys=_NIC_KEYS, required_keys=("name",)),
    "kanctl_memory_gib": Variable(
        check=whole_number(" GiB of main memory, without a unit", 1, 65536), may_be_template=False
    ),
    "kanctl_recorded_hardware": Variable(
        check=text(r"[A-Za-z0-9][A-Za-z0-9._-]*", "the name of a file of playbooks/recorded"), may_be_template=False
    ),
}

_ANY_TEXT = text(r"(?s).*", "text")
_BOOL: Check = lambda value: None if isinstance(value, bool) else "true or false"  # noqa: E731  # one of a table of checks
_ANSIBLE: dict[str, Variable] = {
    "ansible_host": Variable(check=address, may_be_template=False),
    "ansible_port": Variable(check=whole_number("", 1, 65535), may_be_template=False),
    "ansible_user": Variable(
        check=text(r"[A-Za-z_][A-Za-z0-9._-]{0,31}", "a login of letters, digits and ._-"), may_be_template=False
    ),
    "ansible_ssh_private_key_file": Variable(check=own_file, may_be_template=False),
    # kanctl's own probes run with it too, so Ansible's `auto` is not enough.
    "ansible_python_interpreter": Variable(
        check=text(r"/[A-Za-z0-9_./+-]+", "the absolute path of a Python on the node"), may_be_template=False
    ),
    "ansible_become": Variable(check=_BOOL),
    "ansible_connection": Variable(check=text(r"ssh", "ssh, the way that all of kanctl goes")),
    "ansible_group_priority": Variable(check=whole_number("", 0, 1000), may_be_template=False),
    "ansible_pipelining": Variable(check=_BOOL),
    "ansible_ssh_pipelining": Variable(check=_BOOL),
    "ansible_ssh_retries": Variable(check=whole_number("", 0, 100)),
    "ansible_ssh_timeout": Variable(check=whole_number(" seconds, without a unit", 1, 3600)),
    "ansible_timeout": Variable(check=whole_number(" seconds, without a unit", 1, 3600)),
    **{
        name: Variable(check=_ANY_TEXT)
        for name in (
            "ansible_become_exe",
            "ansible_become_flags",
            "ansible_become_method",
            "ansible_become_pass",
            "ansible_become_password",
            "ansible_become_user",
            "ansible_remote_tmp",
            "ansible_shell_executable",
            "ansible_ssh_args",
            "ansible_ssh_common_args",
            "ansible_ssh_extra_args",
        )
    },
}
