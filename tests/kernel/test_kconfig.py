"""Reading Kconfig files of today, explaining values, and finding the parents that a symbol needs."""

from pathlib import Path

import pytest

from kanctl.kernel.fleet.satisfy import find_parents
from kanctl.kernel.kconfig import KconfigTree, modern_line

TREE = Path(__file__).parent / "tree"


@pytest.fixture
def tree(tmp_path):
    """The small tree with a .config that switches nothing on but the defaults."""
    config = tmp_path / ".config"

    def load(text=""):
        config.write_text(text)
        return KconfigTree(TREE, "6.12.117", config)

    return load


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("\tmodules\n", "\toption modules\n"),
        ("\ttransitional\n", "\n"),
        ("\tdepends on A if B\n", "\tdepends on !(B) || (A)\n"),
        ("\tdepends on A # only if B\n", "\tdepends on A # only if B\n"),
        ("config modules\n", "config modules\n"),
    ],
)
def test_newer_words_become_older_ones(line, meant):
    assert modern_line(line) == meant


def test_symbols_of_the_tree_are_known_and_near_names_found(tree):
    found = tree()
    assert found.has("CONFIG_DRIVER")
    assert not found.has("CONFIG_DRIVR")
    assert found.nearest("CONFIG_DRIVR") == ["CONFIG_DRIVER"]


def test_unmet_names_the_part_that_is_off(tree):
    assert tree("CONFIG_BUS=y\n").unmet("CONFIG_DRIVER", "m") == ["VENDOR"]
    assert tree("CONFIG_BUS=y\nCONFIG_VENDOR=y\n").unmet("CONFIG_DRIVER", "m") == []


def test_selectors_names_what_forces_a_symbol(tree):
    assert tree().selectors("CONFIG_FORCED") == ["SELECTOR"]


def test_describe_tells_choice_range_and_question(tree):
    found = tree()
    assert found.describe("CONFIG_FULL")["chosen_instead"] == "CONFIG_NONE"
    assert found.describe("CONFIG_CPUS")["range"] == "2..512"
    assert not found.describe("CONFIG_LONELY")["has_question"]


def test_parents_are_switched_on_from_the_top(tree):
    parents = find_parents(tree(), {"CONFIG_DRIVER": set()})
    assert parents.added == {"CONFIG_BUS": "y", "CONFIG_VENDOR": "y", "CONFIG_DRIVER": "m"}
    assert parents.needed_by == {"CONFIG_BUS": "CONFIG_DRIVER", "CONFIG_VENDOR": "CONFIG_DRIVER"}


def test_of_two_ways_the_shorter_is_taken(tree):
    assert find_parents(tree(), {"CONFIG_EITHER": set()}).added == {"CONFIG_BUS": "y", "CONFIG_EITHER": "m"}


def test_what_may_not_be_switched_on_makes_a_symbol_impossible(tree):
    parents = find_parents(tree(), {"CONFIG_DRIVER": {"CONFIG_VENDOR"}})
    assert parents.added == {}
    assert "VENDOR" in parents.impossible["CONFIG_DRIVER"]


def test_a_negation_is_left_to_a_person(tree):
    assert "CONFIG_NEGATIVE" in find_parents(tree(), {"CONFIG_NEGATIVE": set()}).impossible


def test_a_conditional_dependency_holds_only_under_its_condition(tree):
    assert find_parents(tree(), {"CONFIG_CONDITIONAL": set()}).added == {"CONFIG_CONDITIONAL": "y"}


def test_unknown_and_promptless_symbols_are_told_apart(tree):
    parents = find_parents(tree(), {"CONFIG_NOWHERE": set(), "CONFIG_HELPER": set()})
    assert parents.impossible == {"CONFIG_NOWHERE": "this version has no such symbol"}
    assert parents.selected_only == ["CONFIG_HELPER"]
