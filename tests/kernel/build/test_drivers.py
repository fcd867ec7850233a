"""The driver gate: real modules need a kernel; what their symbols say, and how a build fails, needs none."""

import subprocess

import pytest

from kanctl.kernel.build.drivers import (
    build_driver,
    exports_of,
    known_drivers,
    open_source,
    read_symvers,
    telltale,
    undefined_symbols,
)
from kanctl.kernel.errors import BuildFailed, FragmentInvalid
from kanctl.kernel.source import SourceTree


def quiet(_text):
    """No progress."""


def test_nvidias_open_modules_are_known_by_name():
    row = known_drivers()["nvidia-open"]
    assert "nvidia-peermem" in row["modules"]
    assert any("{objects}" in word for word in row["make"])


@pytest.mark.parametrize(
    ("module", "imports", "said"),
    [
        ("nvidia_peermem", set(), "a stub"),
        ("nvidia_peermem", {"ib_register_peer_memory_client"}, "works with"),
        ("nvidia_uvm", {"hmm_range_fault"}, "uses HMM"),
        ("nvidia_uvm", set(), "without HMM"),
        ("nvidia", {"dma_buf_export"}, "exports dma-buf"),
    ],
)
def test_imports_say_what_a_module_can_do(module, imports, said):
    assert telltale(module, imports).startswith(said)


def test_of_an_unknown_module_nothing_is_claimed():
    assert telltale("gdrdrv", set()) == ""


def test_symbol_lists_are_read():
    assert read_symvers("0x1\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n") == {"printk"}
    assert undefined_symbols("                 U printk\n0000 T start\n                 w maybe\n") == {"printk"}


def test_exports_are_read_from_a_real_object(tmp_path):
    code = tmp_path / "a.c"
    code.write_text('int __ksymtab_hello __attribute__((section("__ksymtab")));\n')
    subprocess.run(["gcc", "-c", "-o", str(tmp_path / "a.o"), str(code)], check=True)
    assert exports_of(tmp_path / "a.o") == {"hello"}


def test_a_driver_is_built_in_a_copy_and_its_failure_shown(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "Makefile").write_text("modules:\n\t@echo pci_resize_resource: too few arguments; false\n")
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "Makefile").write_text("modules:\n\t$(MAKE) -C $(M) modules\n")
    driver = open_source(mine, tmp_path / "work" / "mine")
    tree = SourceTree(path=tmp_path, version="6.12.117", package=None)
    with pytest.raises(BuildFailed, match="too few arguments") as caught:
        build_driver(driver, tree, objects, jobs=1, report=quiet)
    assert "kernel/patches" in caught.value.next_step
    assert [path.name for path in mine.iterdir()] == ["Makefile"]


def test_a_driver_that_makes_no_module_fails(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "Makefile").write_text("modules:\n")
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "Makefile").write_text("modules:\n")
    driver = open_source(mine, tmp_path / "work" / "mine")
    tree = SourceTree(path=tmp_path, version="6.12.117", package=None)
    with pytest.raises(BuildFailed, match="no module"):
        build_driver(driver, tree, tmp_path / "objects", jobs=1, report=quiet)


def test_a_folder_without_a_makefile_is_refused(tmp_path):
    with pytest.raises(FragmentInvalid, match="Makefile or Kbuild"):
        open_source(tmp_path, tmp_path / "work")
