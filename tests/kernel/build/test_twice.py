"""Two bundles compared byte for byte, on small packages."""

import subprocess

from kanctl.kernel.build.twice import compare_bundles


def package(folder, name, content, stamp=1000000000):
    root = folder / f"{name}.root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "boot").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@x>\nDescription: x\n"
    )
    (root / "boot/vmlinuz").write_text(content)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", str(root), str(folder / f"{name}.deb")],
        check=True,
        capture_output=True,
        env={"SOURCE_DATE_EPOCH": str(stamp), "PATH": "/usr/bin:/bin"},
    )


def test_equal_packages_are_identical(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        package(tmp_path / folder, "linux-image", "kernel")
    assert compare_bundles(tmp_path / "a", tmp_path / "b").is_identical


def test_a_differing_file_and_a_missing_package_are_named(tmp_path):
    for folder, content in (("a", "kernel"), ("b", "other")):
        (tmp_path / folder).mkdir()
        package(tmp_path / folder, "linux-image", content)
    package(tmp_path / "a", "linux-headers", "x")
    repeat = compare_bundles(tmp_path / "a", tmp_path / "b")
    assert not repeat.is_identical
    assert repeat.differing == ("linux-headers.deb: in one bundle only", "linux-image.deb: boot/vmlinuz")


def test_a_difference_of_the_container_alone_is_said(tmp_path):
    for folder, stamp in (("a", 1000000000), ("b", 1100000000)):
        (tmp_path / folder).mkdir()
        package(tmp_path / folder, "linux-image", "kernel", stamp)
    (difference,) = compare_bundles(tmp_path / "a", tmp_path / "b").differing
    assert difference == "linux-image.deb: its container, no file inside"
