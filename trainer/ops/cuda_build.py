"""CUDA kernels as shared libraries: built on first use by torch's loader, and kept for every later process.

One process of a machine builds, the others wait for it. One that dies meanwhile leaves nothing behind that a later
one would wait for, as the loader's own lock is. Which kernels there are is the ops' own.
"""

import fcntl
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["build_library", "without_compiler"]

Build = Callable[[str, Path], Path]
"""From a library's name and an empty folder to the file that was built there."""


def without_compiler() -> str | None:
    """Why nothing can be built here; None where it can."""
    # Slow to import, and only needed on GPUs.
    from torch.utils.cpp_extension import CUDA_HOME

    return None if CUDA_HOME else "no CUDA toolkit found (nvcc on PATH, or CUDA_HOME)"


def build_library(
    name: str,
    sources: Sequence[Path],
    headers: Sequence[Path],
    flags: Sequence[str],
    *,
    folder: Path | None = None,
    build: Build | None = None,
) -> Path:
    """The shared library of these sources, built if this machine has none of the same text and flags yet.

    Args:
        folder: where libraries are kept; None: the user's cache, where torch keeps its own.
        build: what builds; None: torch's loader with `flags` for nvcc.

    Raises:
        RuntimeError, OSError: it cannot be built; the first line says why.
    """
    text = b"\0".join([*(path.read_bytes() for path in (*sources, *headers)), *map(str.encode, flags)])
    name = f"{name}_{hashlib.sha256(text).hexdigest()[:12]}"
    folder = folder or _cache()
    kept = folder / f"{name}.so"
    if kept.is_file():
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    build = build or (lambda name, into: _by_torch(name, sources, flags, into))
    with (folder / f"{name}.lock").open("w") as lock:
        # The system gives the lock back when its process ends, however that is.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_file():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                build(name, Path(place)).replace(kept)
    return kept


def _cache() -> Path:
    from torch.utils.cpp_extension import get_default_build_root

    return Path(get_default_build_root()) / "kanctl"


def _by_torch(name: str, sources: Sequence[Path], flags: Sequence[str], into: Path) -> Path:
    from torch.utils.cpp_extension import load

    words = [str(source) for source in sources]
    return Path(load(name, words, extra_cuda_cflags=list(flags), build_directory=str(into), is_python_module=False))
