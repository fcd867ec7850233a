"""Sources: checksums, half unpacked trees, full disks, and trees of the user's own."""

import json
import subprocess

import pytest

from kanctl.kernel import apt, source
from kanctl.kernel.errors import SourceUnavailable
from kanctl.kernel.source import SourcePackage

MAKEFILE = "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\n"


def quiet(_text):
    """No progress."""


@pytest.fixture
def cache(tmp_path):
    """A cache that holds a real, tiny source package."""
    tree = tmp_path / "linux-source-6.12"
    (tree / "init").mkdir(parents=True)
    (tree / "Makefile").write_text(MAKEFILE)
    (tree / "Kconfig").write_text("mainmenu\n")
    (tree / "init" / "Kconfig").write_text("config X\n")
    (tree / "init" / "main.c").write_text("int main;\n")
    for name in ("Kbuild", "scripts/tool.sh", "arch/x86/Makefile.um"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    root = tmp_path / "deb"
    (root / "usr/src").mkdir(parents=True)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: linux-source-6.12\nVersion: 6.12.117-1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    tarball = root / "usr/src/linux-source-6.12.tar.xz"
    subprocess.run(["tar", "-C", str(tmp_path), "-cJf", str(tarball), tree.name], check=True)
    packages = tmp_path / "cache" / "packages"
    packages.mkdir(parents=True)
    deb = packages / "linux-source-6.12_6.12.117-1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(root), str(deb)], check=True, capture_output=True)
    source.record(tmp_path / "cache", deb, "linux-source-6.12", "6.12.117-1", ("deb uri suite main",))
    return tmp_path / "cache"


def test_a_recorded_package_is_unpacked_without_a_network(cache):
    state = apt.AptState(folder=cache / "apt", sources=())
    tree = source.fetch("6.12", cache=cache, state=state, kconfig_only=False, report=quiet)
    assert tree.version == "6.12.117"
    assert tree.numbers == (6, 12, 117)
    assert (tree.path / "init/main.c").is_file()
    assert source.fetch("6.12", cache=cache, state=state, kconfig_only=False, report=quiet) == tree


def test_the_kconfig_form_holds_no_code(cache):
    known = source.recorded(cache, "linux-source-6.12")
    tree = source.unpack(known, cache=cache, kconfig_only=True, report=quiet)
    assert (tree.path / "init/Kconfig").is_file()
    assert not (tree.path / "init/main.c").exists()


def test_a_damaged_package_is_refused_with_both_checksums(cache):
    known = source.recorded(cache, "linux-source-6.12")
    (cache / "packages" / known.file).write_bytes(b"damaged")
    with pytest.raises(SourceUnavailable, match=f"wanted {known.sha256}") as caught:
        source.unpack(known, cache=cache, kconfig_only=True, report=quiet)
    assert caught.value.next_step.startswith("rm ")


def test_half_a_tree_of_a_killed_run_is_unpacked_again(cache):
    known = source.recorded(cache, "linux-source-6.12")
    half = cache / "source" / known.version
    half.mkdir(parents=True)
    (half / "Makefile").write_text("half\n")
    assert source.unpack(known, cache=cache, kconfig_only=False, report=quiet).version == "6.12.117"


def test_a_full_disk_is_named_before_anything_is_unpacked(cache):
    with pytest.raises(SourceUnavailable, match=r"wanted 1000000\.0 GB free on the disk of"):
        source.require_space(cache, 10**15)


def test_a_failed_unpacking_leaves_nothing(cache, tmp_path):
    deb = cache / "packages" / "broken.deb"
    deb.write_bytes(b"no archive")
    package = SourcePackage(file=deb.name, package="x", version="1", sha256=source.sha256_of(deb))
    with pytest.raises(Exception, match="dpkg-deb"):
        source.unpack(package, cache=cache, kconfig_only=True, report=quiet)
    assert list((cache / "kconfig").iterdir()) == []


def test_a_tree_that_was_built_in_place_is_refused_with_the_command_that_cleans_it(tmp_path):
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "Kconfig").write_text("")
    assert source.open_tree(tmp_path).kconfig_only
    (tmp_path / ".config").write_text("")
    with pytest.raises(SourceUnavailable) as caught:
        source.open_tree(tmp_path)
    assert "mrproper" in caught.value.next_step


def test_a_folder_without_a_kernel_is_refused(tmp_path):
    with pytest.raises(SourceUnavailable, match="wanted an unpacked kernel tree"):
        source.open_tree(tmp_path)


def test_the_newest_of_several_versions_counts_by_debians_rules(tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    for version in ("6.12.9-1", "6.12.117-1~deb12u1", "6.12.117-1"):
        (packages / f"p_{version}.deb").write_text("x")
        row = {"file": f"p_{version}.deb", "package": "p", "version": version, "sha256": "0", "sources": []}
        (packages / f"p_{version}.json").write_text(json.dumps(row))
    assert source.recorded(tmp_path, "p").version == "6.12.117-1"


def test_an_unknown_package_names_where_it_was_looked_for(tmp_path):
    state = apt.AptState(folder=tmp_path, sources=("deb uri suite main",))
    (tmp_path / "sources.list").write_text("")
    (tmp_path / "lists/partial").mkdir(parents=True)
    with pytest.raises(SourceUnavailable, match="wanted the package linux-source-0, found none in deb uri suite main"):
        apt.newest(state, "linux-source-0")
