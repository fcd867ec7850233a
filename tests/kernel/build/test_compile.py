"""Compilation: progress, what it estimates, and the one line that names every missing tool."""

import pytest

from kanctl.errors import MissingToolError
from kanctl.kernel.build.compile import Progress, compile_kernel, require_build_tools
from kanctl.kernel.build.objects import expected_objects
from kanctl.kernel.build.settings import BuildSettings
from kanctl.kernel.errors import BuildFailed
from kanctl.kernel.source import SourceTree
from kanctl.kernel.toolchain import ABSENT

SETTINGS = BuildSettings(version="6.12.117", local_version="-kanctl-lab-1a2b3c", revision=1, epoch_s=0)


def test_progress_counts_objects_and_nothing_else():
    said = []
    progress = Progress(expected=3, report=said.append)
    for line in ("  CC      init/main.o", "  LD      vmlinux.o", "  CC [M]  fs/ext4/ext4.o", "make: nothing"):
        progress.line(line)
    assert progress.done == 2
    assert said == ["1 of about 3 objects: init/main.o"]


def test_a_wrong_estimate_is_not_shown():
    said = []
    Progress(expected=0, report=said.append).line("  CC      init/main.o")
    assert said == ["1 objects: init/main.o"]


def test_expected_objects_follow_symbols_folders_and_composites(tmp_path):
    files = {
        "init/Makefile": "obj-y := main.o version.o\n",
        "drivers/Makefile": "obj-$(CONFIG_PCI) += pci/\nobj-y += base/\n",
        "drivers/pci/Makefile": "obj-$(CONFIG_P2P) += p2p.o\nobj-y += big.o\n"
        "big-y := one.o \\\n  two.o\nbig-$(CONFIG_P2P) += three.o\n",
        "drivers/base/Kbuild": "obj-$(CONFIG_OFF) += off.o\noff-objs := never.o\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert expected_objects(tmp_path, {"CONFIG_PCI": "y"}) == 4
    assert expected_objects(tmp_path, {"CONFIG_PCI": "y", "CONFIG_P2P": "m"}) == 6
    assert expected_objects(tmp_path, {}) == 2


def test_missing_tools_are_named_in_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("kanctl.programs.SBIN", ())
    with pytest.raises(MissingToolError, match="building a kernel needs make, gcc") as caught:
        require_build_tools()
    assert caught.value.next_step.startswith("apt-get install -y --no-install-recommends ")
    assert "debhelper" in caught.value.next_step


@pytest.fixture
def compile_with(tmp_path):
    """Compiles a tree of one Makefile, written anew each time, in a folder with a small .config."""
    try:
        require_build_tools()
    except MissingToolError as error:
        pytest.skip(str(error))
    (tmp_path / "tree").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.config").write_text("CONFIG_A=y\n")
    tree = SourceTree(path=tmp_path / "tree", version="6.12.117", package=None)

    def run(rule):
        (tmp_path / "tree/Makefile").write_text(f"bzImage:\n\t{rule}\nmodules:\n")
        return compile_kernel(tree, tmp_path / "out", SETTINGS, key=None, expected=1, jobs=1, report=lambda _: None)

    return run


def test_a_failed_build_shows_the_last_lines_and_goes_on_next_time(compile_with):
    with pytest.raises(BuildFailed, match=r"main\.c: error") as caught:
        compile_with("@echo '  CC      init/main.o'; echo main.c: error; false")
    assert "build.log" in caught.value.next_step
    assert compile_with("@echo '  CC      init/main.o'") == 1


def test_tools_that_kconfig_would_ask_for_are_left_out(compile_with, tmp_path):
    compile_with("@echo $(RUSTC) $(PAHOLE) > $(O)/seen")
    assert (tmp_path / "out/seen").read_text().split() == [ABSENT, ABSENT]
    (tmp_path / "out/.config").write_text("CONFIG_DEBUG_INFO_BTF=y\n")
    compile_with("@echo $(RUSTC) $(PAHOLE) > $(O)/seen")
    assert (tmp_path / "out/seen").read_text().split() == [ABSENT]


def test_a_configuration_that_a_tool_changes_is_refused_with_its_lines(compile_with):
    with pytest.raises(BuildFailed, match="because a tool here differs") as caught:
        compile_with("@echo CONFIG_PAHOLE_VERSION=124 > $(O)/.config")
    assert "-CONFIG_A=y\n  +CONFIG_PAHOLE_VERSION=124" in str(caught.value)
