"""Kernel versions and the conditions on them."""

import pytest

from kanctl.kernel.errors import FragmentInvalid
from kanctl.kernel.version import parse_release, satisfies


@pytest.mark.parametrize(
    ("release", "numbers"),
    [("6.12.117-kanctl-lab-1a2b3c", (6, 12, 117)), ("7.3", (7, 3)), ("6.1.0-27-amd64", (6, 1, 0))],
)
def test_a_release_is_read_up_to_its_first_word(release, numbers):
    assert parse_release(release) == numbers


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("", True),
        ("< 7.0", True),
        ("<= 6.12", True),
        ("< 6.12", False),
        (">= 6.12.117", True),
        ("> 6.12.117", False),
        (">= 6.1 and < 7.0", True),
        (">= 6.1 and < 6.12", False),
    ],
)
def test_only_the_numbers_that_a_condition_names_are_compared(condition, met):
    assert satisfies((6, 12, 117), condition) is met


@pytest.mark.parametrize("text", ["7.0", "== 6.1", "before 7", "< 7.0 or > 8"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(FragmentInvalid, match="wanted a condition such as"):
        satisfies((6, 12), text)


def test_a_word_is_no_release():
    with pytest.raises(FragmentInvalid, match=r"wanted a kernel version such as 6\.12\.117, found 'latest'"):
        parse_release("latest")
