"""`kernel build --on`: the node by its name, and what came back from it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kanctl.cli.app import build_app
from kanctl.cli.kernel.remote_build import find_node, read_results
from kanctl.errors import BadInputError, KanctlError
from kanctl.inventory.load import load_cluster

EXAMPLE = Path(__file__).parents[3] / "inventory/examples/two-nodes/hosts.yml"


@pytest.fixture
def results(tmp_path):
    answer = {"packages": {"image": "/n/a.deb"}, "sbom": ["/n/b.json"], "modules": ["nvme"], "figures": {"objects": 3}}
    (tmp_path / "result.json").write_text(json.dumps(answer))
    for name in ("a.deb", "b.json"):
        (tmp_path / name).touch()
    return tmp_path


def test_results_are_those_that_came(results):
    compiled = read_results(results, "node1")
    assert compiled.packages == {"image": results / "a.deb"}
    assert compiled.sbom == [results / "b.json"]
    assert compiled.figures == {"objects": 3, "node": "node1"}


def test_a_file_that_did_not_come_is_named(results):
    (results / "a.deb").unlink()
    with pytest.raises(KanctlError, match=r"wanted from node1: a\.deb"):
        read_results(results, "node1")


def test_an_unknown_node_is_refused_with_those_there_are():
    cluster = load_cluster(EXAMPLE, roles_dir=None)
    assert find_node(cluster, cluster.nodes[0].name).node is cluster.nodes[0]
    with pytest.raises(BadInputError, match=f"--on names nobody.*{cluster.nodes[0].name}"):
        find_node(cluster, "nobody")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "nobody", "--yes"], "--on names nobody"),
        (["--on", "node1"], "not confirmed"),
        (["--on", "node1", "--yes", "--driver", "nvidia-open"], "drivers are built on this machine"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_begins(words, said):
    words = ["kernel", "build", "--inventory", str(EXAMPLE), *words]
    done = CliRunner().invoke(build_app(words), words)
    assert isinstance(done.exception, BadInputError)
    assert said in str(done.exception)
