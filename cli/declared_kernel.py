"""Which kernel arguments an inventory declares for a node: the role node_tuning's own rules, asked outside Ansible."""

from pathlib import Path

import yaml

import kanctl
from kanctl.errors import BadInputError
from kanctl.inventory import Node

from .context import playbooks_dir
from .playbook_code import load_playbook_code


def declared_arguments(node: Node, release: str) -> tuple[str, ...] | None:
    """The arguments that a kernel of this release gets on this node; None where no node_tuning variable is set.

    Raises BadInputError where the variables contradict each other or the profile is none.
    """
    own = {name: value for name, value in node.variables.items() if name.startswith("node_tuning_")}
    if not own:
        return None
    role = playbooks_dir() / "roles" / "node_tuning"
    values = {**yaml.safe_load((role / "defaults" / "main.yml").read_text()), **own}
    profile = Path(kanctl.__file__).parent / "kernel" / "cmdline" / f"{values['node_tuning_profile']}.args"
    if not profile.is_file():
        raise BadInputError(
            f"{node.name}: node_tuning_profile is {values['node_tuning_profile']}; there is no {profile}"
        )
    placeholders = {name: values[f"node_tuning_{name}"] for name in ("isolated_cpus", "hugepages_1gib_pages")}
    # The one parser of .args files is the filter that Ansible uses; a second one would disagree with it some day.
    rules = load_playbook_code("roles/node_tuning/filter_plugins/kernel_cmdline.py")
    try:
        rows = rules.kernel_arguments(profile.read_text(), release, placeholders)
        rows = rules.override_arguments(rows, values["node_tuning_extra_arguments"])
    except rules.AnsibleFilterError as error:
        raise BadInputError(f"{node.name}: {error}") from error
    return tuple(row["argument"] for row in rows)
