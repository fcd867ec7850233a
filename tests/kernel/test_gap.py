"""What `kanctl kernel gap` says of recorded nodes, of what cannot be read, and of what is written but not in effect."""

from pathlib import Path

import pytest

from kanctl.cli.kernel.facts import read_fleet
from kanctl.cli.kernel.gap import document, find_gap, lines, table, verdict
from kanctl.errors import BadInputError, CheckFailedError
from kanctl.kernel.boot_arguments import fixed_arguments
from kanctl.kernel.capability import load_capabilities
from kanctl.kernel.errors import FragmentInvalid
from kanctl.kernel.fragment import read_fragment
from kanctl.kernel.gap import Fix, judge
from kanctl.kernel.kernel_setup import node_setup
from kanctl.kernel.profile import load_profile, profile_names

FOLDER = Path(__file__).parent / "fleet"
ROOT = Path(__file__).parents[2]
CAPABILITIES = load_capabilities()
# File -> the verdicts in the order of capabilities.toml.
EXPECTED = {
    "debian12-6.1": ("tune", "build", "driver + tune", "build + driver + tune", "build", "driver + tune", "build"),
    "debian12-6.12": ("tune", "build", "driver + tune", "build + tune", "build", "driver + tune", "build"),
    "ubuntu2404-doca": ("met", "met", "met", "tune", "met", "met", "build"),
    "debian-7.3": ("tune", "driver", "driver + tune", "driver + tune", "driver", "driver + tune", "build"),
    "debian12-rt": (
        "build + tune", "build + driver", "build + driver + tune", "build + driver + tune", "build + driver",
        "build + driver + tune", "build",
    ),
}  # fmt: skip


def facts(name: str) -> dict:
    (only,) = read_fleet(FOLDER / f"{name}.json")["nodes"].values()
    return only


def verdicts(name: str, **changes):
    return judge(node_setup({**facts(name), **changes}), CAPABILITIES)


def steps(found) -> set[tuple[str, str]]:
    return {(str(step.fix), step.line) for step in found.steps}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_verdicts_of_a_recorded_node(name):
    assert tuple(found.word for found in verdicts(name).values()) == EXPECTED[name]


def test_a_distribution_kernel_needs_only_boot_arguments_for_low_latency():
    found = verdicts("debian12-6.1")["low-latency"]
    assert steps(found) == {
        ("boot argument", "preempt=full"),
        ("boot argument", "numa_balancing=disable"),
        ("boot argument", "transparent_hugepage=madvise"),
    }
    assert "kanctl kernel tune" in found.enough


def test_the_boot_arguments_are_those_that_tune_would_set():
    given = (ROOT / "kernel/cmdline/low-latency.args").read_text().splitlines()
    found = verdicts("debian12-6.12")["low-latency"]
    named = [step.line for step in (*found.steps, *found.better) if step.fix is Fix.BOOT and "CPUS" not in step.line]
    assert len(named) == 4
    assert set(named) <= set(given)


def test_what_debian_12_lacks_needs_a_build():
    found = verdicts("debian12-6.12")
    assert ("rebuild", "CONFIG_PCI_P2PDMA=y") in steps(found["gpudirect-rdma-dmabuf"])
    assert ("rebuild", "CONFIG_DMABUF_MOVE_NOTIFY=y") in steps(found["gpudirect-rdma-dmabuf"])
    assert ("rebuild", "CONFIG_DEVICE_PRIVATE=y") in steps(found["hmm"])
    assert "no boot argument helps" in found["hmm"].enough


def test_what_gap_asks_of_a_build_our_profiles_give():
    asked = {step.line for found in verdicts("debian12-6.12").values() for step in found.steps if step.fix is Fix.BUILD}
    assert len(asked) == 4
    for name in profile_names():
        requests = load_profile(name).requests((6, 12, 117))
        given = {f"{symbol}={request.value}" for symbol, request in requests.items()}
        assert asked - given == {"CONFIG_SCHED_CLASS_EXT=y"}, "only the fragment 61-btf has it"


def test_a_node_with_our_kernel_and_its_arguments_is_met_without_another_build():
    profile = load_profile("low-latency")
    requests = profile.requests((6, 12, 117))
    found = verdicts(
        "debian12-6.12",
        config={symbol: request.value for symbol, request in requests.items() if request.value != "n"},
        cmdline=" ".join(fixed_arguments(profile.cmdline, (6, 12, 117))),
    )
    assert [name for name in CAPABILITIES if found[name].is_met] == ["low-latency", "gpudirect-rdma-dmabuf", "hmm"]
    assert (found["gpudirect-storage"].word, found["ibgda"].word) == ("tune", "tune")


def test_move_notify_is_not_asked_of_linux_7():
    found = verdicts("debian-7.3")["gpudirect-rdma-dmabuf"]
    assert steps(found) == {("driver", "NVIDIA's open kernel modules")}


def test_debian_is_judged_by_its_version_and_not_by_the_name_of_its_abi():
    assert node_setup(facts("debian12-6.1")).version == (6, 1, 192)
    old = verdicts("debian12-6.1", version="#1 SMP Debian 6.1.20-1")["hmm"]
    assert ("rebuild", "a kernel >= 6.3") in steps(old)


def test_preempt_none_is_replaced_and_ignored_arguments_are_not_offered():
    assert ("boot argument", "preempt=full") in steps(verdicts("debian-7.3")["low-latency"])
    config = {**facts("debian12-6.12")["config"]}
    del config["CONFIG_PREEMPT_DYNAMIC"]
    found = verdicts("debian12-6.12", config=config)["low-latency"]
    assert ("rebuild", "CONFIG_PREEMPT_DYNAMIC=y") in steps(found)


def test_an_unreadable_configuration_is_unknown_and_never_met():
    found = verdicts("ubuntu2404-doca", config=None)
    assert found["gpudirect-rdma-dmabuf"].is_met is None
    assert found["gpudirect-rdma-dmabuf"].word == "unknown"
    assert all("/proc/config.gz" in step.place for step in found["gpudirect-rdma-dmabuf"].steps)
    assert found["gpudirect-rdma-peermem"].word == "met", "it asks nothing of the configuration that decides"


def test_peermem_is_unknown_before_ib_core_is_loaded():
    loaded = [name for name in facts("debian12-6.12")["loaded"] if name != "ib_core"]
    found = verdicts("debian12-6.12", loaded=loaded)["gpudirect-rdma-peermem"]
    assert ("unknown" in found.word, found.is_met) == (True, False)
    assert any("kallsyms" in step.place for step in found.steps)


def test_ibgda_takes_the_path_that_is_there():
    assert verdicts("ubuntu2404-doca", ib_core_peermem=False, loaded=["nvidia", "ib_core"])["ibgda"].word == "met"


def test_options_that_are_written_but_not_loaded_ask_for_a_restart():
    written = {
        "/etc/modprobe.d/kanctl.conf": "options nvidia NVreg_EnableStreamMemOPs=1\noptions nvme_core multipath=n\n"
    }
    found = verdicts("debian12-6.12", modprobe=written)
    assert any(step.fix is Fix.RESTART and "EnableStreamMemOPs" in step.line for step in found["ibgda"].steps)
    assert any(step.fix is Fix.RESTART and "multipath" in step.line for step in found["gpudirect-storage"].steps)


def test_an_option_on_the_command_line_counts():
    found = verdicts("ubuntu2404-doca", cmdline="nvme_core.multipath=N", parameters={"nvme_core.multipath": "N"})
    assert not any("multipath" in step.line for step in found["gpudirect-storage"].steps)


def test_dwords_of_the_node_are_kept_in_the_one_string_that_counts():
    gap = find_gap(read_fleet(FOLDER / "ubuntu2404-doca.json"), ["gpudirect-storage"])
    (line,) = [step for step in gap.nodes[0].steps() if "RegistryDwords" in step.line]
    assert line.line == (
        'options nvidia NVreg_RegistryDwords="PeerMappingOverride=1;RMForceStaticBar1=1;RmForceDisableIomapWC=1;"'
    )
    assert line.place == "/etc/modprobe.d/nvidia.conf, in place of NVreg_RegistryDwords there"


def test_a_hex_dword_and_a_bool_by_another_name_are_the_same():
    parameters = {**facts("ubuntu2404-doca")["parameters"], "nvidia.NVreg_RegistryDwords": "PeerMappingOverride=0x1"}
    parameters["nvidia_uvm.uvm_disable_hmm"] = "Y"
    found = verdicts("ubuntu2404-doca", parameters=parameters)
    assert found["ibgda"].word == "met"
    assert found["hmm"].word == "tune"


def test_identical_nodes_are_one_row():
    fleet = read_fleet(FOLDER / "debian12-6.12.json")
    fleet["nodes"] |= {"twin": fleet["nodes"]["node2"], **read_fleet(FOLDER / "debian-7.3.json")["nodes"]}
    _, rows = table(find_gap(fleet, []))
    assert [row[0] for row in rows] == ["node2, twin", "node4"]
    text = lines(find_gap(fleet, []))
    assert sum("CONFIG_PCI_P2PDMA=y" in line for line in text) == 1


def test_only_a_capability_asked_for_fails_the_command():
    fleet = read_fleet(FOLDER / "debian12-6.12.json")
    assert verdict(find_gap(fleet, [])) is None
    error = verdict(find_gap(fleet, ["hmm"]))
    assert isinstance(error, CheckFailedError)
    assert "node2: hmm: build" in str(error)
    assert verdict(find_gap(read_fleet(FOLDER / "ubuntu2404-doca.json"), ["hmm", "ibgda"])) is None


def test_wrong_names_and_other_machines_are_refused():
    fleet = read_fleet(FOLDER / "debian12-6.12.json")
    with pytest.raises(BadInputError, match="no capability gds"):
        find_gap(fleet, ["gds"])
    fleet["nodes"]["grace"] = {**fleet["nodes"]["node2"], "machine": "aarch64"}
    with pytest.raises(BadInputError, match="wanted nodes with x86_64, found: grace is aarch64"):
        find_gap(fleet, [])


def test_the_document_has_every_need_with_its_reason_and_source():
    row = document(find_gap(read_fleet(FOLDER / "debian12-6.12.json"), ["hmm"]))["nodes"]["node2"]
    assert row["version"] == "6.12.117"
    (found,) = row["capabilities"].values()
    assert (found["met"], found["verdict"]) == (False, "build")
    assert all(need["why"] and need["source"] and need["found"] for need in found["needs"])
    assert row["steps"] == [{"fix": "rebuild", "line": "CONFIG_DEVICE_PRIVATE=y", "place": "rebuild", "for": ["hmm"]}]


def test_fixtures_say_that_they_are_written_and_not_recorded():
    for path in FOLDER.glob("*.json"):
        assert "not recorded" in read_fleet(path)["source"], path.name


def test_fragments_name_capabilities_that_there_are():
    for path in (ROOT / "kernel/fragments").glob("*.config"):
        for request in read_fragment(path).requests:
            assert set(request.capabilities) <= set(CAPABILITIES), request.place


def test_mistakes_in_the_capabilities_are_named_together(tmp_path):
    path = tmp_path / "capabilities.toml"
    path.write_text(
        '[[capability]]\nname = "a"\nsummary = "s"\n'
        '[[capability.need]]\nis = "CONFIG_X"\nwhy = "w"\nsource = "s"\n'
        '[[capability.need]]\nis = "capability b"\nwhy = "w"\nsource = "s"\n'
        '[[capability.need]]\nis = "boot x"\nwhy = "w"\nhint = "h"\n'
    )
    with pytest.raises(FragmentInvalid) as caught:
        load_capabilities(path)
    for part in ("need 1: wanted a condition", "no capability b above it", "need 3: wrong or missing: hint, source"):
        assert part in str(caught.value)
