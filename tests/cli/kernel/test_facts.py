"""Fleet files: what is refused, with what was wanted and found; and the fleet of this machine."""

import json

import pytest

from kanctl.cli.kernel.facts import FORMAT, collect_here, read_fleet, write_fleet
from kanctl.kernel.errors import FleetInvalid


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", f"wanted a fleet file of the format {FORMAT}"),
        ('{"format": "other"}', "found other"),
        (f'{{"format": "{FORMAT}", "nodes": {{}}}}', "names no node"),
        (f'{{"format": "{FORMAT}", "nodes": {{"n1": {{"machine": "x86_64"}}}}}}', "n1 lacks cmdline, config"),
        (f'{{"format": "{FORMAT}", "nodes": {{"n1": 3}}}}', "n1 is no object"),
    ],
)
def test_a_fleet_file_that_is_none_is_refused_with_the_next_step(tmp_path, text, said):
    (tmp_path / "fleet.json").write_text(text)
    with pytest.raises(FleetInvalid, match=said) as caught:
        read_fleet(tmp_path / "fleet.json")
    assert "--write-fleet" in caught.value.next_step


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FleetInvalid, match="cannot be read"):
        read_fleet(tmp_path / "none.json")


def test_this_machine_is_a_fleet_of_one_that_can_be_kept(tmp_path):
    fleet = collect_here()
    write_fleet(fleet, tmp_path / "fleet.json")
    assert read_fleet(tmp_path / "fleet.json") == json.loads(json.dumps(fleet))
    assert list(fleet["nodes"]) == ["localhost"]
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.json"]


def test_the_shipped_example_is_a_fleet_file(project_root):
    fleet = read_fleet(project_root / "inventory/examples/h200-pair/fleet.json")
    assert list(fleet["nodes"]) == ["node1", "node2"]
    assert "recorded on no real machine" in fleet["comment"]
