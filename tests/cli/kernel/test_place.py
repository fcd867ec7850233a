"""Which archives a series is asked of, and where things lie."""

import pytest

from kanctl.cli.kernel.place import apt_state, source_lines, source_table
from kanctl.errors import BadInputError
from kanctl.lab.apt_sources import Source

MAIN = Source(uri="http://mirror/debian", suite="bookworm", components=("main",), signed_by="/keys/main.gpg")
SECURITY = Source(uri="http://mirror/security", suite="bookworm-security", components=("main",))


def test_other_suites_are_asked_on_the_machines_own_mirror_with_its_key():
    lines = source_lines([MAIN, SECURITY], ["trixie", "trixie-security"], ["main"])
    assert lines == [
        "deb [signed-by=/keys/main.gpg] http://mirror/debian trixie main",
        "deb http://mirror/security trixie-security main",
    ]


def test_without_a_security_archive_the_main_one_serves():
    assert source_lines([MAIN], ["bookworm-security"], ["contrib"])[0].startswith(
        "deb [signed-by=/keys/main.gpg] http://mirror/debian bookworm-security contrib"
    )


def test_an_unknown_series_names_those_that_are_known():
    with pytest.raises(BadInputError, match=r"series 5\.4") as caught:
        apt_state("5.4")
    assert "6.12" in caught.value.next_step
    assert "--source" in caught.value.next_step


def test_every_series_has_suites():
    for rows in source_table().values():
        assert all(row["suites"] for row in rows.values())
