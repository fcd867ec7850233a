"""Where corpora and runs lie and where the train modules run: this machine, or the cluster's first node over SSH.

Every train verb works on a Place, so `--local` and a cluster differ only here and in launch.py.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from kanctl.errors import BadInputError, KanctlError
from kanctl.inventory import Cluster, Node

from ..context import find_inventory, load, user_data_dir
from ..remote import Answer, Remote, connect

NODE_PYTHON = "/opt/kanctl/venv/bin/python"
# A single node needs no shared folder; this one is its own.
LONE_NODE_DATA_DIR = "/var/lib/kanctl/data"


class Place(Protocol):
    """A machine that holds the data folder; `nodes` is empty on this machine."""

    name: str
    data_dir: str
    nodes: tuple[Node, ...]

    def run_module(self, module: str, words: Sequence[str], *, timeout_s: float = 3600) -> Answer:
        """Run `python -m kanctl.trainer.<module>` to its end."""
        ...

    def stream_module(self, module: str, words: Sequence[str]) -> Iterator[str]:
        """The module's stdout and stderr, line by line. Raises KanctlError when it ends with another code than 0."""
        ...

    def run(self, words: Sequence[str], *, timeout_s: float = 60) -> Answer:
        """Run any command to its end."""
        ...

    def stream(self, words: Sequence[str]) -> Iterator[str]:
        """A command's stdout, line by line."""
        ...

    def read_text(self, path: str) -> str | None:
        """A file's text, None when there is none."""
        ...

    def write_text(self, path: str, text: str) -> None:
        """Write a file, complete or not at all."""
        ...


class LocalPlace:
    """This machine."""

    name = "this machine"
    nodes: tuple[Node, ...] = ()

    def __init__(self) -> None:
        self.data_dir = str(user_data_dir())

    def run_module(self, module: str, words: Sequence[str], *, timeout_s: float = 3600) -> Answer:
        return self.run([sys.executable, "-m", f"kanctl.trainer.{module}", *words], timeout_s=timeout_s)

    def stream_module(self, module: str, words: Sequence[str]) -> Iterator[str]:
        command = [sys.executable, "-u", "-m", f"kanctl.trainer.{module}", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield line.rstrip("\n")
        _require_zero(module, self.name, process.returncode)

    def run(self, words: Sequence[str], *, timeout_s: float = 60) -> Answer:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
        return Answer(node=self.name, words=tuple(words), code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def stream(self, words: Sequence[str]) -> Iterator[str]:
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    yield line.rstrip("\n")
            finally:
                process.terminate()

    def read_text(self, path: str) -> str | None:
        file = Path(path)
        return file.read_text() if file.is_file() else None

    def write_text(self, path: str, text: str) -> None:
        partial = Path(f"{path}.part")
        partial.write_text(text)
        os.replace(partial, path)


class ClusterPlace:
    """The cluster's data folder, reached through its first node."""

    def __init__(self, remote: Remote, cluster: Cluster) -> None:
        self.nodes = cluster.nodes
        self.name = f"{cluster.name} ({remote.node.name})"
        self.data_dir = cluster.shared_dir or LONE_NODE_DATA_DIR
        self._remote = remote

    def run_module(self, module: str, words: Sequence[str], *, timeout_s: float = 3600) -> Answer:
        return self.run([NODE_PYTHON, "-m", f"kanctl.trainer.{module}", *words], timeout_s=timeout_s)

    def stream_module(self, module: str, words: Sequence[str]) -> Iterator[str]:
        # The exit status travels as a last line, since a stream has no other way to bring it.
        command = shlex.join([NODE_PYTHON, "-u", "-m", f"kanctl.trainer.{module}", *words])
        code = 255
        for line in self._remote.stream(["sh", "-c", f"{command} 2>&1; echo kanctl-exit=$?"]):
            if line.startswith("kanctl-exit="):
                code = int(line.partition("=")[2])
            else:
                yield line
        _require_zero(module, self.name, code)

    def run(self, words: Sequence[str], *, timeout_s: float = 60) -> Answer:
        return self._remote.run(words, timeout_s=timeout_s)

    def stream(self, words: Sequence[str]) -> Iterator[str]:
        return self._remote.stream(words)

    def read_text(self, path: str) -> str | None:
        return self._remote.read_text(path)

    def write_text(self, path: str, text: str) -> None:
        self._remote.write_text(path, text)


@contextmanager
def open_place(inventory: Path | None, *, local: bool) -> Iterator[Place]:
    """The place the options name. Raises BadInputError for several nodes without a shared folder."""
    if local:
        yield LocalPlace()
        return
    cluster = load(inventory)
    if len(cluster.nodes) > 1 and cluster.shared_dir is None:
        raise BadInputError(
            f"{cluster.path}: {len(cluster.nodes)} nodes train together only with a folder that all of them share",
            "mount one (NFS, for example) and set kanctl_shared_dir to its path",
        )
    with connect(cluster.nodes[0]) as remote:
        yield ClusterPlace(remote, cluster)


def means_local(inventory: Path | None, local: bool) -> bool:
    """True for --local, and for a machine where no inventory is given or found."""
    if local:
        return True
    try:
        find_inventory(inventory)
    except BadInputError:
        if inventory is not None or "KANCTL_INVENTORY" in os.environ:
            raise
        return True
    return False


def _require_zero(module: str, where: str, code: int) -> None:
    if code != 0:
        error = KanctlError(f"{module} on {where} ended with {code}; its own message is above")
        error.exit_code = code if code in range(1, 6) else 1
        raise error
