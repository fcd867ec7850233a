"""The driver gate: out-of-tree modules are built against a kernel and looked into before the kernel is published.

An edge file. That a module compiles proves little: nvidia-peermem compiles to a stub on kernels without the vendor's
InfiniBand stack, and NVIDIA's UVM without HMM. What the modules import says what they can do.
"""

import re
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kanctl.programs import ProgramFailed, run, run_logged

from ..errors import BuildFailed, FragmentInvalid
from ..fleet.aliases import module_name
from ..source import SourcePackage, SourceTree, check_sha256
from .patches import FOLDER as PATCHES
from .patches import Patch, apply_patch

TABLE = Path(__file__).parent / "drivers.toml"
# Module -> (symbol that it must import, what it means with it, what it means without).
# Source: KERNEL facts of docs/kernel.md; the stub's own words are "module compiled without IB peer memory symbols".
TELLTALES = {
    "nvidia_peermem": (
        "ib_register_peer_memory_client",
        "works with the vendor's InfiniBand stack",
        "a stub: this kernel's ib_core has no peer memory; GPUDirect RDMA goes by dma-buf",
    ),
    "nvidia_uvm": ("hmm_range_fault", "uses HMM", "without HMM: the kernel lacks DEVICE_PRIVATE"),
    "nvidia": ("dma_buf_export", "exports dma-buf, which GPUDirect RDMA needs", "exports no dma-buf"),
}

# Without its telltale symbol such a module refuses to load: "module compiled without IB peer memory symbols present".
STUBS = ("nvidia_peermem",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSource:
    """A driver to build: its unpacked source and how make is called there."""

    name: str
    folder: Path
    make: tuple[str, ...]
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverModule:
    """One module that came out, and what its imports say."""

    name: str
    file: Path
    vermagic: str
    unresolved: tuple[str, ...]
    note: str = ""
    # It compiles to nothing that could load here, and is not expected to.
    is_stub: bool = False

    def row(self) -> dict[str, object]:
        """The module as the manifest lists it."""
        size = self.file.stat().st_size
        return {
            "name": self.name, "file": self.file.name, "bytes": size, "note": self.note, "is_stub": self.is_stub,
        }  # fmt: skip


def known_drivers() -> dict[str, dict[str, object]]:
    """The drivers that can be named without a path."""
    return tomllib.loads(TABLE.read_text())


def unpack_known(
    name: str, package: SourcePackage, *, cache: Path, work: Path, patches: Sequence[Patch]
) -> DriverSource:
    """A known driver's source, fresh in `work` with its patches, since drivers are built in their own folder."""
    row = known_drivers()[name]
    deb = cache / "packages" / package.file
    check_sha256(deb, package.sha256)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run(["dpkg-deb", "-x", str(deb), str(work / "deb")])
    for tarball in sorted((work / "deb").glob("usr/src/*.tar.*")):
        run(["tar", "-C", str(work), "-xf", str(tarball)])
    shutil.rmtree(work / "deb")
    folder = work / str(row["folder"])
    for patch in patches:
        apply_patch(folder, PATCHES / patch.file)
    make, modules = row["make"], row["modules"]
    assert isinstance(make, list)
    assert isinstance(modules, list)
    return DriverSource(name=name, folder=folder, make=tuple(make), modules=tuple(modules))


def open_source(path: Path, work: Path) -> DriverSource:
    """A driver of the user's own, copied to `work` so that nothing is built in their folder. Raises FragmentInvalid."""
    if not any((path / name).is_file() for name in ("Makefile", "Kbuild")):
        raise FragmentInvalid(f"wanted a driver's source with a Makefile or Kbuild, found none at {path}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(path, work, symlinks=True)
    return DriverSource(name=path.resolve().name, folder=work, make=("M={folder}", "modules"))


def build_driver(
    driver: DriverSource, tree: SourceTree, objects: Path, *, jobs: int, report: Callable[[str], None]
) -> list[DriverModule]:
    """Build a driver against a compiled kernel and look into its modules.

    Raises:
        BuildFailed: it does not compile, a module is missing, or one needs a symbol that nobody has.
    """
    report(f"building the driver {driver.name}")
    places = {"source": str(tree.path), "objects": str(objects.resolve()), "folder": str(driver.folder.resolve())}
    words = [word.format(**places) for word in driver.make]
    where = ["-C", str(objects.resolve())] if "M={folder}" in driver.make else ["-C", str(driver.folder)]
    log = driver.folder.with_name(f"{driver.folder.name}.log")
    try:
        run_logged(["make", *where, f"-j{jobs}", *words], log=log)
    except ProgramFailed as error:
        raise BuildFailed(
            f"the driver {driver.name} does not build against {tree.version}:\n  {error}",
            f"see {log}; a patch for it belongs into kernel/patches with the subject {driver.name}",
        ) from error
    files = sorted(driver.folder.rglob("*.ko"))
    missing = set(driver.modules) - {path.stem for path in files}
    if missing or not files:
        raise BuildFailed(f"{driver.name} built, but {', '.join(sorted(missing)) or 'no module'} did not come out")
    for path in files:
        run(["strip", "--strip-debug", str(path)])
    return inspect(files, objects)


def inspect(files: Sequence[Path], objects: Path) -> list[DriverModule]:
    """What the modules import, against what the kernel and they themselves export. Raises BuildFailed."""
    exported = read_symvers((objects / "Module.symvers").read_text())
    for path in files:
        exported |= exports_of(path)
    found = []
    for path in files:
        imports = undefined_symbols(run(["nm", "-u", str(path)]))
        name = module_name(path.name)
        found.append(
            DriverModule(
                name=name,
                file=path,
                vermagic=run(["modinfo", "-F", "vermagic", str(path)]).strip(),
                unresolved=tuple(sorted(imports - exported)),
                note=telltale(name, imports),
                is_stub=name in STUBS and TELLTALES[name][0] not in imports,
            )
        )
    wrong = [f"{module.name}: {', '.join(module.unresolved[:5])}" for module in found if module.unresolved]
    if wrong:
        raise BuildFailed("modules need symbols that neither the kernel nor they export:\n  " + "\n  ".join(wrong))
    return found


def telltale(module: str, imports: set[str]) -> str:
    """What a module's imports say of it; empty for one that nothing is known of."""
    if module not in TELLTALES:
        return ""
    symbol, with_it, without = TELLTALES[module]
    return with_it if symbol in imports else without


def read_symvers(text: str) -> set[str]:
    """The symbols of a Module.symvers file: checksum, name, place, kind."""
    return {line.split("\t")[1] for line in text.splitlines() if line.count("\t") >= 3}


def undefined_symbols(listing: str) -> set[str]:
    """The names that `nm -u` lists; weak ones may stay undefined."""
    rows = [line.split() for line in listing.splitlines()]
    return {row[-1] for row in rows if len(row) >= 2 and row[-2] == "U"}


def exports_of(module: Path) -> set[str]:
    """What a module exports to others: the names behind its __ksymtab entries."""
    names = re.findall(r"\b__ksymtab_(\w+)$", run(["nm", str(module)]), re.MULTILINE)
    return set(names)
