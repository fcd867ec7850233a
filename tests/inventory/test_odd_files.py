"""Files that no editor wrote: the loader answers with mistakes, never with a crash or a hang."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from kanctl.inventory.errors import InventoryInvalid
from kanctl.inventory.load import load_cluster

ONE_NODE = "all: {children: {nodes: {hosts: {n1: {ansible_host: 10.0.0.1}}}}}\n"
ODD = {
    "an anchor that holds itself": "all: &a\n  children: *a\n",
    "groups in a circle of anchors": "all: {children: {nodes: &n {children: {inner: *n}, hosts: {n1: {}}}}}\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "a port that is a list": ONE_NODE.replace("10.0.0.1", "10.0.0.1, ansible_port: [22]"),
    "an address that is a mapping": ONE_NODE.replace("10.0.0.1", "{a: 1}"),
    "a number with a strange digit": ONE_NODE.replace("n1", "'n[²:³]'"),
    "a vault tag on a list": "all: {vars: {site_a: !vault [1]}}\n",
    "a whole number that is none": "all: {vars: {site_a: !!int x}}\n",
    "two documents": ONE_NODE + "---\n" + ONE_NODE,
    "an undefined alias": "all: *a\n",
    "deep nesting": "all: " + "[" * 5000 + "]" * 5000 + "\n",
    "a name that is a path": ONE_NODE.replace("n1", "../../../etc/passwd"),
    "a very long name": ONE_NODE.replace("n1", "n" * 5000),
    "a plugin's configuration": "plugin: amazon.aws.aws_ec2\n",
    "a truth value that is none": "all: {vars: {site_a: !!bool x}}\n",
    "a number without a digit": "all: {vars: {site_a: !!int ''}}\n",
    "a time that is none": "all: {vars: {site_a: !!timestamp x}}\n",
    "a range that no machine can count": ONE_NODE.replace("n1", f"'n[1:{'9' * 5000}]'"),
    "ranges that multiply": ONE_NODE.replace("n1", "'n[1:1000]-[1:1000]-[1:1000]'"),
    "a word that never ends": ONE_NODE.replace("10.0.0.1", "a" * 5000 + "_"),
    "the old format": "[nodes]\nn1 ansible_host=10.0.0.1\n",
    "a vault": "$ANSIBLE_VAULT;1.1;AES256\n3132\n",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_an_odd_file_is_a_list_of_mistakes(text, tmp_path):
    path = tmp_path / "hosts.yml"
    path.write_text(text)
    with pytest.raises(InventoryInvalid) as caught:
        load_cluster(path, roles_dir=None)
    assert caught.value.mistakes
    assert caught.value.exit_code == 2


def test_many_aliases_of_aliases_take_no_time(tmp_path):
    lines = ["site_0: &a0 [1, 1, 1, 1]"]
    lines += [f"site_{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (tmp_path / "hosts.yml").write_text(ONE_NODE)
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("\n".join(lines))
    assert load_cluster(tmp_path / "hosts.yml", roles_dir=None).nodes


@contextmanager
def not_as_root():
    """Root may read everything, so for a while the process is nobody."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("closed", ["hosts.yml", "group_vars/all.yml", "group_vars", "host_vars/n1"])
def test_a_file_or_folder_that_may_not_be_read_is_a_mistake(closed):
    # Not in tmp_path, whose parents only their owner may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "group_vars").mkdir()
        (folder / "host_vars" / "n1").mkdir(parents=True)
        (folder / "group_vars" / "all.yml").write_text("site_a: 1\n")
        (folder / "hosts.yml").write_text(ONE_NODE)
        (folder / closed).chmod(0)
        with not_as_root(), pytest.raises(InventoryInvalid, match=r"read(able YAML file)?: Permission denied"):
            load_cluster(folder / "hosts.yml", roles_dir=None)
        (folder / closed).chmod(0o700)


def test_groups_that_meet_again_and_again_take_no_time(tmp_path):
    levels = [f"{side}{n}: {{children: {{a{n + 1}: {{}}, b{n + 1}: {{}}}}}}" for n in range(30) for side in "ab"]
    hosts = "nodes: {children: {a0: {}, b0: {}}}\na30: {hosts: {n1: {ansible_host: 10.0.0.1}}}\n"
    (tmp_path / "hosts.yml").write_text(hosts + "\n".join(levels))
    assert load_cluster(tmp_path / "hosts.yml", roles_dir=None).nodes


def test_aliases_of_aliases_of_groups_take_no_time(tmp_path):
    lines = ["site:", "  vars:", "    site_a:", f"      - &g0 {{hosts: {{{'n1: {ansible_host: 10.0.0.1}'}}}}}"]
    lines += [f"      - &g{n} {{children: {{a{n}: *g{n - 1}, b{n}: *g{n - 1}}}}}" for n in range(1, 40)]
    (tmp_path / "hosts.yml").write_text("\n".join([*lines, "nodes: *g39"]))
    assert load_cluster(tmp_path / "hosts.yml", roles_dir=None).nodes


def test_wrong_variables_in_files_beside_it_are_named_there(tmp_path):
    path = tmp_path / "hosts.yml"
    path.write_text(ONE_NODE)
    for name, text in {"group_vars/all.yml": "- a\n", "host_vars/n1.yml": "\nansible_prot: 22\n"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    with pytest.raises(InventoryInvalid) as caught:
        load_cluster(path, roles_dir=None)
    assert [(mistake.file.name, mistake.line) for mistake in caught.value.mistakes] == [("all.yml", 1), ("n1.yml", 2)]
    assert "the nearest known name is ansible_port" in str(caught.value)
