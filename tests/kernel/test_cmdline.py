"""Every kernel/cmdline/*.args line carries its reason, and no profile contradicts itself on any kernel."""

import re
from pathlib import Path

import pytest

from kanctl.cli.playbook_code import load_playbook_code
from kanctl.kernel.boot_arguments import deferred_arguments, fixed_arguments
from kanctl.kernel.version import parse_release

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "kernel/cmdline").glob("*.args"))
RELEASES = ["5.15.0-100-generic", "6.1.0-41-amd64", "6.12.117+deb12-amd64", "7.0.1", "7.3.4-1"]
EVERYTHING = {"isolated_cpus": "2-15", "hugepages_1gib_pages": 4}
NOTHING = {"isolated_cpus": "", "hugepages_1gib_pages": 0}


cmdline = load_playbook_code("roles/node_tuning/filter_plugins/kernel_cmdline.py")
per_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
per_release = pytest.mark.parametrize("release", RELEASES)


def arguments(profile: Path, release: str, values: dict) -> dict[str, str]:
    rows = cmdline.kernel_arguments(profile.read_text(), release, values)
    return {cmdline.argument_key(row["argument"]): row["argument"] for row in rows}


@per_profile
@per_release
def test_what_a_bundle_promises_is_what_a_node_without_values_gets(profile, release):
    rows = cmdline.kernel_arguments(profile.read_text(), release, NOTHING)
    assert fixed_arguments(profile.stem, parse_release(release)) == [row["argument"] for row in rows]


@per_profile
def test_what_a_bundle_leaves_to_the_inventory_is_what_placeholders_fill(profile):
    blocks = cmdline.parse_blocks(profile.read_text())
    filled = {cmdline.argument_key(line) for _, _, line in blocks if cmdline.PLACEHOLDER.search(line)}
    assert deferred_arguments(profile.stem) == filled


def test_the_three_profiles_are_there():
    assert [path.stem for path in PROFILES] == ["inference", "low-latency", "throughput"]


@per_profile
def test_every_argument_has_a_reason_and_a_source(profile):
    for number, comments, argument in cmdline.parse_blocks(profile.read_text()):
        assert cmdline.reason_lines(comments), f"{profile.name}:{number} {argument} has no reason"
        assert any(line.startswith("Source: ") for line in comments), (
            f"{profile.name}:{number} {argument} has no source"
        )


@per_profile
@per_release
@pytest.mark.parametrize("values", [EVERYTHING, NOTHING], ids=["all placeholders", "no placeholder"])
def test_no_profile_contradicts_itself(profile, release, values):
    keys = [row["argument"] for row in cmdline.kernel_arguments(profile.read_text(), release, values)]
    assert len(keys) == len(set(keys))


@per_profile
@per_release
def test_a_tickless_core_is_isolated_and_has_its_rcu_callbacks_elsewhere(profile, release):
    got = arguments(profile, release, EVERYTHING)
    tickless = got.get("nohz_full", "=").split("=")[1]
    assert got.get("rcu_nocbs", "=").split("=")[1] == tickless
    assert got.get("isolcpus", "=").endswith(tickless)


@per_profile
@per_release
def test_number_and_size_of_huge_pages_come_together_and_in_order(profile, release):
    keys = list(arguments(profile, release, EVERYTHING))
    assert keys.index("hugepages") == keys.index("hugepagesz") + 1
    assert not {"hugepages", "hugepagesz"} & set(arguments(profile, release, NOTHING))


@per_profile
@per_release
def test_preemption_is_one_that_the_kernel_knows(profile, release):
    """Linux 7 removed none and voluntary on x86; lazy came with 6.13."""
    mode = arguments(profile, release, NOTHING)["preempt"].removeprefix("preempt=")
    assert mode in ({"lazy", "full"} if release.startswith("7") else {"none", "voluntary", "full"})


@per_profile
def test_peer_traffic_is_not_translated_and_mitigations_stay_on(profile):
    got = arguments(profile, RELEASES[2], EVERYTHING)
    assert got["iommu"] == "iommu=pt"
    assert not [key for key in got if re.search("mitigations|nospectre|pti$|nopti", key)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("preempt=full\n", "no reason"),
        ("# Reason.\na=1 b=2\n", "not one kernel argument"),
        ("# Reason.\na=$(reboot)\n", "not one kernel argument"),
        ("# Reason.\na={nothing_such}\n", "nothing fills"),
        ("# One.\na=1\n\n# Two.\na=2\n", "contradicts"),
    ],
)
def test_a_broken_profile_is_refused_with_its_line(text, complaint):
    with pytest.raises(cmdline.AnsibleFilterError, match=complaint):
        cmdline.kernel_arguments(text, "6.12", NOTHING)


def test_a_value_that_could_reach_a_shell_is_refused():
    with pytest.raises(cmdline.AnsibleFilterError, match="not one kernel argument"):
        cmdline.kernel_arguments("# Reason.\nnohz_full={cpus}\n", "6.12", {"cpus": "2;reboot"})


def test_an_argument_of_the_node_takes_the_place_of_the_profiles():
    profile = [{"argument": "preempt=none", "reason": "r"}, {"argument": "iommu=pt", "reason": "r"}]
    merged = cmdline.override_arguments(profile, [{"argument": "preempt=lazy", "reason": "own"}])
    assert [row["argument"] for row in merged] == ["iommu=pt", "preempt=lazy"]


def test_a_stored_command_line_keeps_what_others_wrote_and_loses_what_we_wrote_before():
    merged = cmdline.merge_cmdline(
        "BOOT_IMAGE=/x root=UUID=1 ro quiet skew_tick=1 iommu=on", ["iommu=pt", "preempt=full"], ["skew_tick=1"]
    )
    assert merged == "root=UUID=1 ro quiet iommu=pt preempt=full"
    assert cmdline.merge_cmdline(merged, ["iommu=pt", "preempt=full"], ["iommu=pt", "preempt=full"]) == merged


def test_missing_arguments_are_whole_words():
    assert cmdline.missing_arguments(["iommu=pt", "preempt=full"], "ro iommu=ptx preempt=full") == ["iommu=pt"]
