"""The small initramfs of the boot test: busybox, our init and probe, cyclictest, modules to try. An edge file."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from kanctl.programs import find, run

from ..fleet.aliases import module_name
from ..fleet.reference import parse_dependencies
from ..stock import StockKernel

FOLDER = Path(__file__).parent
# Program -> Debian package.
BOOT_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "cyclictest": "rt-tests",
    "cpio": "cpio",
    "gcc": "gcc",
    "depmod": "kmod",
    "xz": "xz-utils",
}
LIBRARY = re.compile(r"(/\S+\.so[.\d]*)")
UNPACK = {".xz": "xz", ".zst": "zstd", ".gz": "gzip"}


def build_initramfs(kernel: StockKernel, modules: Sequence[str], drivers: Sequence[Path], work: Path) -> Path:
    """Pack an initramfs for a kernel in `work`; its modules are the named ones with all they need.

    A module that the kernel does not ship is left out here, and reported as failed by the guest.
    """
    root = work / "root"
    shutil.rmtree(root, ignore_errors=True)
    for folder in ("bin", "lib", "drivers", "proc", "sys", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    shutil.copy2(find("busybox", "busybox-static"), root / "bin" / "busybox")
    # The kernel itself calls this one when a module asks for an algorithm by name.
    (root / "sbin").mkdir()
    (root / "sbin" / "modprobe").symlink_to("/bin/busybox")
    run(["gcc", "-O2", "-static", "-o", str(root / "bin" / "probe"), str(FOLDER / "probe.c")])
    _add_program(Path(find("cyclictest", "rt-tests")), root)
    shutil.copy2(FOLDER / "init.sh", root / "init")
    (root / "init").chmod(0o755)
    (root / "modules.list").write_text("\n".join(modules) + "\n")
    _add_modules(kernel, modules, root)
    # In the order given: a driver comes after the ones whose symbols it needs.
    (root / "drivers.list").write_text("".join(f"/drivers/{driver.name}\n" for driver in drivers))
    for driver in drivers:
        shutil.copy2(driver, root / "drivers" / driver.name)
    image = work / "initramfs.cpio"
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    image.write_bytes(b"")
    run(["cpio", "--quiet", "--reproducible", "-o", "-H", "newc", "-F", str(image)], cwd=root, stdin=names)
    return image


def _add_program(program: Path, root: Path) -> None:
    """A dynamic program with its libraries, at the same places."""
    shutil.copy2(program, root / "bin" / program.name)
    for library in LIBRARY.findall(run(["ldd", str(program)])):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(library).resolve(), target)


def _add_modules(kernel: StockKernel, modules: Sequence[str], root: Path) -> None:
    """The named modules, unpacked, with what they depend on and a fresh index."""
    source = kernel.modules
    dep = source / "modules.dep"
    text = dep.read_text() if dep.is_file() else ""
    files = {module_name(line.partition(":")[0]): line.partition(":")[0] for line in text.splitlines()}
    depends = parse_dependencies(text, "")
    target = root / "lib" / "modules" / kernel.release
    target.mkdir(parents=True)
    wanted = [module_name(module) for module in modules]
    # Asked for by name at run time (crc32c of libcrc32c), so no list of dependencies leads to them; they are small.
    algorithms = [name for name, path in files.items() if "/crypto/" in path] if wanted else []
    for name in _closure([*wanted, *algorithms], depends):
        if name in files:
            _unpack_module(source / files[name], target / files[name])
    for index in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        if (source / index).is_file():
            shutil.copy2(source / index, target / index)
    run(["depmod", "-b", str(root), kernel.release])


def _closure(names: Sequence[str], depends: dict[str, tuple[str, ...]]) -> list[str]:
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = None
            waiting += depends.get(name, ())
    return list(found)


def _unpack_module(packed: Path, target: Path) -> None:
    """busybox reads no compressed modules."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(packed, target)
    if packed.suffix in UNPACK:
        run([UNPACK[packed.suffix], "-d", "-q", "-f", str(target)])
