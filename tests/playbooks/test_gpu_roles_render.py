"""Facts of a node -> files and decisions of the GPU roles; the cases are in gpu_roles_cases.yml."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
ROLES = HERE.parents[1] / "playbooks/roles"
CASES = yaml.safe_load((HERE / "gpu_roles_cases.yml").read_text())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Case -> file -> text, from one run of ansible-playbook."""
    out = tmp_path_factory.mktemp("rendered")
    hosts = {name: {**case["given"], "roles": str(ROLES), "out": str(out)} for name, case in CASES.items()}
    inventory = out / "inventory.yml"
    defaults = {
        name: value
        for path in sorted(ROLES.glob("*/defaults/main.yml"))
        for name, value in yaml.safe_load(path.read_text()).items()
    }
    inventory.write_text(yaml.safe_dump({"all": {"vars": defaults, "children": {"cases": {"hosts": hosts}}}}))
    environment = {
        **os.environ,
        "ANSIBLE_FILTER_PLUGINS": ":".join(str(path) for path in sorted(ROLES.glob("*/filter_plugins"))),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    command = [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, HERE / "gpu_roles_render.yml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return {name: json.loads((out / f"{name}.json").read_text()) for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "file"), [(case, file) for case, content in CASES.items() for file in content["expected"]]
)
def test_a_node_gets_the_lines_that_its_facts_ask_for(rendered, case, file):
    text = rendered[case][file]
    wanted = CASES[case]["expected"][file]
    assert [line for line in wanted.get("has", []) if line not in text.splitlines()] == [], text
    assert [part for part in wanted.get("lacks", []) if part in "\n".join(uncommented(text))] == [], text


def uncommented(text: str) -> list[str]:
    return ["", *[line for line in text.splitlines() if not line.startswith("#")], ""]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_module_option_has_its_reason_above_it(rendered, case):
    lines = rendered[case]["kanctl-nvidia.conf"].splitlines()
    for above, line in pairwise(lines):
        assert not line.startswith("options ") or above.startswith("#")
