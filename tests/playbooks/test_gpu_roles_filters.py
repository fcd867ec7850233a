"""Module options: registry dwords become one string, and names that do nothing are refused."""

import pytest

from kanctl.cli.playbook_code import load_playbook_code

options = load_playbook_code("roles/nvidia_tuning/filter_plugins/module_options.py")


def dword(name: str, value: object, **more: str) -> dict:
    return {"name": name, "value": value, "reason": "a reason", **more}


def test_registry_dwords_of_all_rows_become_one_string():
    rows = options.wanted_rows([dword("PeerMappingOverride", 1), dword("RMForceStaticBar1", 1)], [])
    assert options.registry_dwords(rows) == "PeerMappingOverride=1;RMForceStaticBar1=1;"


def test_the_same_dword_twice_is_written_once_and_two_values_are_refused():
    twice = options.wanted_rows([dword("A", 1), dword("A", 1)], [])
    assert options.registry_dwords(twice) == "A=1;"
    with pytest.raises(options.AnsibleFilterError, match="A is wanted as 1 and as 2"):
        options.registry_dwords(options.wanted_rows([dword("A", 1), dword("A", 2)], []))


def test_no_rows_give_an_empty_string():
    assert options.registry_dwords([]) == ""


def test_rows_stay_only_where_the_node_has_the_trait_they_need():
    rows = [dword("A", 1, needs="rdma"), dword("B", 1), dword("C", 1, needs="gds_p2pdma")]
    assert [row["name"] for row in options.wanted_rows(rows, ["rdma"])] == ["A", "B"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("NVreg_PeerMappingOverride", "registry dword"),
        ("NVreg_OpenRmEnableUnsupportedGpus", "ignores it"),
        ("NVreg_RegistryDwords", "only one such string"),
    ],
)
def test_an_option_that_does_nothing_is_refused_with_what_to_do(name, advice):
    with pytest.raises(options.AnsibleFilterError, match=advice):
        options.module_options([{"module": "nvidia", "name": name, "value": "1", "reason": "r"}])


def test_a_value_that_would_end_its_line_is_refused():
    with pytest.raises(options.AnsibleFilterError, match="plain value"):
        options.registry_dwords([dword("A", "1;\noptions")])


# As a 580 driver on an H100 writes it.
PARAMS = 'EnableStreamMemOPs: 0\nRmProfilingAdminOnly: 1\nRegistryDwords: "PeerMappingOverride=1;"\nRmMsg: ""\n'


def test_options_that_the_loaded_module_does_not_have_are_named():
    rows = [
        {"module": "nvidia", "name": "NVreg_EnableStreamMemOPs", "value": "1"},
        {"module": "nvidia", "name": "NVreg_RestrictProfilingToAdminUsers", "value": "0"},
        {"module": "nvidia", "name": "NVreg_NotShownThere", "value": "1"},
        {"module": "nvidia-uvm", "name": "uvm_disable_hmm", "value": "1"},
    ]
    assert options.options_not_loaded(rows, "PeerMappingOverride=1;", PARAMS) == [
        "EnableStreamMemOPs=1",
        "RmProfilingAdminOnly=0",
    ]
    assert options.options_not_loaded([], "", PARAMS) == []
