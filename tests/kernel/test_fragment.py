"""Fragments: the form, the mistakes, and two that contradict each other; then the fragments that we ship."""

from pathlib import Path

import pytest

import kanctl
from kanctl.kernel.dotconfig import digest, parse, parse_line, render
from kanctl.kernel.errors import FragmentInvalid
from kanctl.kernel.fragment import merge, parse_fragment, read_fragment

FOLDER = Path(kanctl.__file__).parent / "kernel" / "fragments"
SHIPPED = [read_fragment(path) for path in sorted(FOLDER.glob("*.config"))]

TEXT = """# Disks and what they hang on.
# Capability: gpudirect-storage

# The usual root disk.
# Source: Documentation/nvme
CONFIG_BLK_DEV_NVME=m

# Peer disks vanish behind one path.
# Kernel: < 7.0
# Risk: compatibility - no failover
# CONFIG_NVME_MULTIPATH is not set
"""


def test_a_fragment_keeps_reason_tags_and_place_of_every_symbol():
    fragment = parse_fragment("50-storage", TEXT)
    nvme, multipath = fragment.requests
    assert fragment.summary == "Disks and what they hang on."
    assert (nvme.symbol, nvme.value, nvme.reason) == ("CONFIG_BLK_DEV_NVME", "m", "The usual root disk.")
    assert nvme.sources == ("Documentation/nvme",)
    assert nvme.place == "50-storage:6"
    assert (multipath.value, multipath.kernel, multipath.risks) == ("n", "< 7.0", ("compatibility - no failover",))
    assert nvme.capabilities == multipath.capabilities == ("gpudirect-storage",)


def test_every_mistake_of_a_file_is_named_at_once():
    text = """# Head.

CONFIG_A=y

# Reason.
CONFIG_B=yes

# Reason.
# Kernel: before 7
CONFIG_C=y

# Reason.
# Risk: boredom
CONFIG_D=y

CONFIG E=y

# A comment above nothing.

# Reason.
CONFIG_F=y

# Reason.
CONFIG_F=m
"""
    with pytest.raises(FragmentInvalid) as caught:
        parse_fragment("bad", text)
    message = str(caught.value)
    for part in (
        "bad:3: CONFIG_A has no reason",
        "bad:6: CONFIG_B has the value yes",
        "bad:10: CONFIG_C: wanted a condition",
        "'boredom' is no risk",
        "line 16: wanted CONFIG_NAME=value",
        "bad:18: a comment that stands above no symbol",
        "bad:24: CONFIG_F stands in line 21 already",
    ):
        assert part in message
    assert caught.value.next_step


def test_merge_rejects_two_values_for_one_symbol_and_names_both_places():
    first = parse_fragment("a", "# A.\n\n# Fast.\nCONFIG_HZ_1000=y\n")
    second = parse_fragment("b", "# B.\n\n# Slow.\n# CONFIG_HZ_1000 is not set\n")
    with pytest.raises(FragmentInvalid, match=r"a:4 wants y \(Fast\.\); b:4 wants n \(Slow\.\)"):
        merge([first, second], (6, 12))


def test_merge_keeps_a_symbol_to_the_versions_it_names():
    old = parse_fragment("a", "# A.\n\n# Old.\n# Kernel: < 7.0\nCONFIG_X=y\n")
    new = parse_fragment("b", "# B.\n\n# New.\n# Kernel: >= 7.0\nCONFIG_X=m\n")
    assert merge([old, new], (6, 12))["CONFIG_X"].value == "y"
    assert merge([old, new], (7, 3))["CONFIG_X"].value == "m"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FragmentInvalid, match=r"missing\.config cannot be read"):
        read_fragment(tmp_path / "missing.config")


def test_the_lines_of_a_config_survive_reading_and_writing():
    text = 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="a b"\n# a comment\n'
    assert parse(text) == {"CONFIG_A": "y", "CONFIG_C": '"a b"'}
    assert render({"CONFIG_A": "y", "CONFIG_B": "n"}) == "CONFIG_A=y\n# CONFIG_B is not set\n"
    assert parse_line("# CONFIG_B is not set") == ("CONFIG_B", "n")
    assert digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("fragment", SHIPPED, ids=lambda fragment: fragment.name)
def test_shipped_fragments_say_what_they_are_for_and_repeat_no_reason(fragment):
    assert fragment.summary
    assert fragment.requests
    for request in fragment.requests:
        name = request.symbol.removeprefix("CONFIG_").replace("_", " ").lower()
        assert request.reason.lower().rstrip(".") != name, f"{request.place} says only its name"
        assert len(request.reason) >= 12, f"{request.place}: {request.reason!r} is no reason"
