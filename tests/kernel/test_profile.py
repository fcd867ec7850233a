"""Profiles: what ships is whole and free of contradictions, and mistakes in a profile are named at once."""

from pathlib import Path

import pytest

import kanctl
from kanctl.kernel.errors import FragmentInvalid
from kanctl.kernel.profile import load_profile, profile_names

FOLDER = Path(kanctl.__file__).parent / "kernel"
# One version of each kind that the fragments are kept for.
VERSIONS = [(6, 1, 192), (6, 12, 117), (7, 3, 4)]


def test_the_four_profiles_of_the_docs_are_there():
    assert profile_names() == ["inference", "lab", "low-latency", "throughput"]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("name", profile_names())
def test_no_two_fragments_of_a_profile_contradict_each_other(name, version):
    requests = load_profile(name).requests(version)
    assert len(requests) > 300
    assert requests["CONFIG_PREEMPT_DYNAMIC"].value == "y", "one image serves all preemption modes"
    assert requests["CONFIG_PCI_P2PDMA"].value == "y", "what only a build gives must be in every build"
    assert requests["CONFIG_DEVICE_PRIVATE"].value == "y"


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_keeps_every_mitigation(name):
    off = [
        request.place
        for symbol, request in load_profile(name).requests((6, 12, 117)).items()
        if symbol.startswith("CONFIG_MITIGATION_") and request.value == "n"
    ]
    assert not off


@pytest.mark.parametrize("name", profile_names())
def test_no_profile_asks_for_the_real_time_kernel(name):
    requests = load_profile(name).requests((6, 12, 117))
    assert "CONFIG_PREEMPT_RT" not in requests or requests["CONFIG_PREEMPT_RT"].value == "n"


def test_an_unknown_profile_names_those_that_exist():
    with pytest.raises(FragmentInvalid, match="none named 'fast'") as caught:
        load_profile("fast")
    assert "low-latency" in caught.value.next_step


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "fragments").mkdir()
    (tmp_path / "cmdline").mkdir()
    (tmp_path / "fragments" / "00-a.config").write_text("# A.\n\n# A reason to be.\nCONFIG_A=y\n")
    return tmp_path


def write(folder, text):
    (folder / "profiles" / "mine.toml").write_text(text)
    return load_profile("mine", folder)


def test_every_mistake_of_a_profile_is_named_at_once(folder):
    with pytest.raises(FragmentInvalid) as caught:
        write(
            folder,
            'summary = "x"\nfragments = ["00-a", "99-z"]\ncmdline = "none"\npreempt = "rt"\n'
            'modprobe = [{option = "x"}]\nwaivers = [{symbol = "CONFIG_A", reason = ""}]\n',
        )
    for part in ("99-z.config", "none.args", "'rt' is none of", "modprobe[0]", "waivers[0]"):
        assert part in str(caught.value)


def test_unknown_keys_and_wrong_types_are_named(folder):
    with pytest.raises(FragmentInvalid, match="colour: no such key") as caught:
        write(folder, 'summary = 3\nfragments = "00-a"\ncolour = "red"\n')
    assert "summary: wanted str" in str(caught.value)
    assert "fragments: wanted list" in str(caught.value)


def test_text_that_is_no_toml_is_named_with_its_file(folder):
    with pytest.raises(FragmentInvalid, match=r"mine\.toml is not TOML"):
        write(folder, "summary = ")


def test_a_waiver_holds_only_for_the_versions_it_names(folder):
    profile = write(
        folder,
        'summary = "x"\nfragments = ["00-a"]\nwaivers = [{symbol = "CONFIG_A", reason = "gone", kernel = ">= 7.0"}]\n',
    )
    assert not profile.waived((6, 12))
    assert profile.waived((7, 3))["CONFIG_A"].reason == "gone"
