"""How many objects a configuration will compile: a walk over the Makefiles, for progress alone. Pure but for reading.

An estimate: rules that Makefiles compute with make's own functions are not followed.
"""

import re
from collections.abc import Mapping
from pathlib import Path

# Where the kernel's own Makefile starts (core-y, drivers-y and libs-y of Kbuild and arch/x86).
ROOTS = (
    "init", "usr", "arch/x86", "kernel", "certs", "mm", "fs", "ipc", "security", "crypto", "block", "io_uring",
    "lib", "drivers", "sound", "net", "virt", "arch/x86/lib", "arch/x86/pci", "arch/x86/power", "arch/x86/video",
    "arch/x86/boot", "arch/x86/boot/compressed",
)  # fmt: skip
ASSIGNMENT = re.compile(r"^([\w./-]+?)-(y|m|objs|\$\((CONFIG_\w+)\))\s*[+:]?=\s*(.*)$")


def expected_objects(tree: Path, config: Mapping[str, str]) -> int:
    """About how many .o files make will compile for a configuration (symbol -> value)."""
    objects: set[str] = set()
    waiting = [Path(root) for root in ROOTS]
    seen: set[Path] = set()
    while waiting:
        folder = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        text = _makefile(tree / folder)
        for word in _enabled_words(text, config):
            if word.endswith(".o"):
                objects.add(str(folder / word))
            elif word.endswith("/"):
                waiting.append(folder / word.rstrip("/"))
    return len(objects)


def _makefile(folder: Path) -> str:
    for name in ("Kbuild", "Makefile"):
        if (folder / name).is_file():
            return (folder / name).read_text(errors="replace").replace("\\\n", " ")
    return ""


def _enabled_words(text: str, config: Mapping[str, str]) -> list[str]:
    """The objects and folders of the lines that the configuration switches on."""
    lines = [found for found in map(ASSIGNMENT.match, text.splitlines()) if found]
    on = [found for found in lines if found.group(3) is None or config.get(found.group(3), "n") in {"y", "m"}]
    # `foo-y += a.o` counts only where `obj-$(CONFIG_FOO) += foo.o` is on; foo.o itself is then linked, not compiled.
    targets = {
        word.removesuffix(".o") for found in on if found.group(1) in {"obj", "lib"} for word in found.group(4).split()
    }
    composites = {found.group(1) for found in lines} - {"obj", "lib"}
    words = [
        word
        for found in on
        if found.group(1) in {"obj", "lib"} or found.group(1) in targets
        for word in found.group(4).split()
    ]
    return [word for word in words if word.removesuffix(".o") not in composites]
