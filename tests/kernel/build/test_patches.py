"""The table of patches is whole, every patch applies to what it is for, and one that does not stops the build."""

from datetime import date

import pytest

from kanctl.kernel.build.patches import FOLDER, load_patches, overdue, patched_tree
from kanctl.kernel.errors import FragmentInvalid, SourceUnavailable
from kanctl.kernel.source import SourceTree

# What the patches change, as the sources have it; the lines around are what a patch is recognised by.
SOURCES = {
    "drivers/pci/p2pdma.c": "\n" * 442
    + "\t{PCI_VENDOR_ID_INTEL,\t0x2033, 0},\n\t{PCI_VENDOR_ID_INTEL,\t0x2020, 0},\n"
    + "\t{PCI_VENDOR_ID_INTEL,\t0x09a2, 0},\n\t{}\n};\n\n",
}


def tree_of(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return SourceTree(path=folder, version="6.12.117", package=None)


def quiet(_text):
    """No progress."""


def test_the_table_has_a_driver_a_peer_to_peer_and_a_latency_patch():
    patches = load_patches()
    assert {patch.subject for patch in patches} == {"kernel", "nvidia-open"}
    assert any("p2pdma" in patch.file for patch in patches)
    assert any("atenc" in patch.reason or "interrupts off" in patch.reason for patch in patches)


def test_every_patch_file_stands_in_the_table_and_says_why_in_its_head():
    listed = {patch.file for patch in load_patches()}
    assert listed == {path.name for path in FOLDER.glob("*.patch")}
    for name in listed:
        head, mark, _ = (FOLDER / name).read_text().partition("\n--- a/")
        assert mark
        assert len(head.splitlines()) >= 3


def test_a_patch_belongs_to_its_subject_and_versions():
    patch = next(patch for patch in load_patches() if patch.subject == "nvidia-open")
    assert patch.fits("nvidia-open", (6, 12, 117))
    assert not patch.fits("nvidia-open", (6, 12, 90))
    assert not patch.fits("kernel", (6, 12, 117))


def test_patches_are_applied_to_a_copy_and_the_copy_is_used_again(tmp_path):
    tree = tree_of(tmp_path / "tree", SOURCES)
    p2pdma = [patch for patch in load_patches() if patch.file == "p2pdma-sapphire-rapids.patch"]
    patched = patched_tree(tree, p2pdma, cache=tmp_path / "cache", report=quiet)
    assert "0x0b25" not in (tree.path / "drivers/pci/p2pdma.c").read_text()
    assert patched.path != tree.path
    # No mark of a whole tree was copied, as in a tree of the user's own: the copy is made again, never half used.
    assert "0x0b25" in (patched.path / "drivers/pci/p2pdma.c").read_text()


def test_a_patch_that_does_not_apply_leaves_no_tree(tmp_path):
    tree = tree_of(tmp_path / "tree", {"drivers/pci/p2pdma.c": "something else\n"})
    p2pdma = [patch for patch in load_patches() if patch.file == "p2pdma-sapphire-rapids.patch"]
    with pytest.raises(SourceUnavailable, match=r"p2pdma-sapphire-rapids\.patch does not apply") as caught:
        patched_tree(tree, p2pdma, cache=tmp_path / "cache", report=quiet)
    assert "patches.toml" in caught.value.next_step
    assert list((tmp_path / "cache" / "source").iterdir()) == []


def test_without_patches_the_tree_itself_is_used(tmp_path):
    tree = tree_of(tmp_path, {"Makefile": ""})
    assert patched_tree(tree, [], cache=tmp_path / "cache", report=quiet) is tree


def test_a_patch_past_its_end_is_named():
    patches = load_patches()
    assert overdue(patches, date(2026, 1, 1)) == []
    assert len(overdue(patches, date(2099, 1, 1))) == len(patches)


def test_mistakes_of_the_table_are_named_at_once(tmp_path):
    (tmp_path / "patches.toml").write_text(
        '[[patch]]\nfile = "a.patch"\nsubject = "kernel"\n\n[[patch]]\nfile = "b.patch"\nsubject = "kernel"\n'
        'versions = ""\nreason = "r"\nupstream = "u"\nends = "soon"\n'
    )
    with pytest.raises(FragmentInvalid, match=r"a\.patch: wanted the keys") as caught:
        load_patches(tmp_path)
    assert "ends is no date: 'soon'" in str(caught.value)
