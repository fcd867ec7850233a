"""Nodes take packages from the host's own distribution, whichever way its sources are written."""

import pytest

from kanctl.lab.apt_sources import (
    Release,
    Source,
    is_own,
    kept_apt_options,
    parse_deb822,
    parse_one_line,
    read_release,
    read_sources,
)
from kanctl.lab.errors import LabToolsMissing

BOOKWORM = Release(distribution="debian", codename="bookworm")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEB822 = f"""\
# See sources.list(5).
Types: deb deb-src
# A comment between fields.
URIs: http://mirror.example/debian
  http://second.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}

Types: deb
URIs: http://vendor.example/apt
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/vendor.gpg

Enabled: no
Types: deb
URIs: http://old.example/debian
Suites: bookworm
Components: main
"""


def test_deb822_gives_one_source_per_address_and_suite():
    found = parse_deb822(DEB822)
    assert [(source.uri, source.suite) for source in found] == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://second.example/debian", "bookworm"),
        ("http://second.example/debian", "bookworm-updates"),
        ("http://vendor.example/apt", "bookworm"),
    ]
    assert found[0].components == ("main", "contrib")
    assert found[0].signed_by == KEYRING


def test_one_line_form_with_and_without_options():
    text = (
        "# comment\n"
        "deb http://mirror.example/debian bookworm main contrib # more\n"
        f"deb [arch=amd64 signed-by={KEYRING}] http://mirror.example/debian bookworm-updates main\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "deb http://broken.example\n"
    )
    assert parse_one_line(text) == [
        Source(uri="http://mirror.example/debian", suite="bookworm", components=("main", "contrib")),
        Source(uri="http://mirror.example/debian", suite="bookworm-updates", components=("main",), signed_by=KEYRING),
    ]


def test_a_source_written_as_a_line_is_read_back_the_same():
    source = Source(uri="http://m.example/debian", suite="bookworm", components=("main",), signed_by=KEYRING)
    assert parse_one_line(source.to_line()) == [source]


@pytest.mark.parametrize(
    ("suite", "components", "signed_by", "expected"),
    [
        ("bookworm", ("main",), None, True),
        ("bookworm-security", ("main", "contrib"), KEYRING, True),
        ("bookworm-pgdg", ("main",), None, False),
        ("bookworm", ("stable",), None, False),
        ("bookworm", ("main",), "/usr/share/keyrings/vendor-archive-keyring.gpg", False),
        ("trixie", ("main",), KEYRING, False),
    ],
)
def test_only_the_distributions_own_sources_are_taken(suite, components, signed_by, expected):
    source = Source(uri="http://m.example", suite=suite, components=components, signed_by=signed_by)
    assert is_own(source, BOOKWORM) is expected


def test_sources_are_read_from_both_kinds_of_files(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://classic.example/debian bookworm main\n")
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "ignored.bak").write_text("deb http://backup.example bookworm main\n")
    addresses = {source.uri for source in read_sources(BOOKWORM, tmp_path)}
    assert addresses == {
        "http://classic.example/debian",
        "http://mirror.example/debian",
        "http://second.example/debian",
    }


def test_a_machine_without_an_own_source_is_told_so(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    with pytest.raises(LabToolsMissing, match="debian's own source for bookworm"):
        read_sources(BOOKWORM, tmp_path)


def test_another_distribution_is_told_what_the_lab_runs_on(tmp_path):
    (tmp_path / "os-release").write_text('ID=fedora\nPRETTY_NAME="Fedora Linux 42"\n')
    with pytest.raises(LabToolsMissing, match="Fedora Linux 42"):
        read_release(tmp_path / "os-release")
    (tmp_path / "os-release").write_text('ID=ubuntu\nVERSION_CODENAME="noble"\n')
    assert read_release(tmp_path / "os-release") == Release(distribution="ubuntu", codename="noble")


def test_nodes_keep_the_hosts_proxy_and_dates_but_not_its_keys():
    dump = (
        'Acquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::https::CaInfo "/etc/special.pem";\n'
        'Acquire::http "";\n'
        'Acquire::Languages "none";\n'
        'APT::Architecture "amd64";\n'
    )
    assert kept_apt_options(dump) == (
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::Check-Valid-Until "false";',
    )
