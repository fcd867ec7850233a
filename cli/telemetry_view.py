"""Watches all nodes at once, one SSH connection each, and draws what they say until the user leaves.

A node that dies becomes a row that says why, and is tried again until it answers. Nothing stays behind on a node:
collect ends by itself when its connection closes, however this program ends.
"""

import json
import os
import select
import shlex
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kanctl.errors import KanctlError, NodeUnreachableError
from kanctl.inventory import Cluster, Node
from kanctl.monitoring.errors import SampleInvalid
from kanctl.monitoring.sample import NodeSample, from_dict

from .output import print_answer, print_note, print_table
from .remote import Remote, connect, on_every_node
from .telemetry_table import COLUMNS, GPU_COLUMNS, NodeView, document, gpu_rows, node_row

if TYPE_CHECKING:
    from rich.console import Group

NODE_PYTHON = "/opt/kanctl/venv/bin/python"
CONNECT_TIMEOUT_S = 5.0
RETRY_S = 2.0
# A node that sends nothing for this many intervals, and a little, has lost its power or its network.
SILENT_INTERVALS = 4
SILENT_SLACK_S = 3.0
LEAVE_TIMEOUT_S = 2.0


def look_once(cluster: Cluster, nodes: Sequence[Node]) -> list[NodeView]:
    """One sample of every node."""
    answers = on_every_node(nodes, lambda remote: _take_one(remote, cluster.shared_dir))
    views = []
    for name, answer in answers.items():
        if isinstance(answer, NodeSample):
            views.append(NodeView(node=name, sample=answer, age_s=0.0))
        else:
            views.append(NodeView(node=name, problem=str(answer)))
    return views


def missing_error(views: Sequence[NodeView]) -> NodeUnreachableError | None:
    """The error that a single look ends with, after the others were shown."""
    missing = [view.node for view in views if view.state == "no_answer"]
    if not missing:
        return None
    names = ",".join(missing)
    return NodeUnreachableError(f"no sample from {names}", f"kanctl health check --limit {names}")


def print_views(views: Sequence[NodeView], title: str) -> None:
    """The tables on stdout."""
    print_table(COLUMNS, [node_row(view) for view in views], title=title)
    gpus = gpu_rows(views)
    if gpus:
        print_table(GPU_COLUMNS, gpus)


def watch(cluster: Cluster, nodes: Sequence[Node], *, interval_s: float, as_json: bool) -> None:
    """Draw until q or Ctrl-C; on no terminal a table, or a JSON line, every `interval_s`."""
    board = Board(nodes, interval_s)
    with board.watching(cluster.shared_dir):
        try:
            if sys.stdout.isatty() and not as_json:
                _draw_live(cluster, board)
            else:
                _print_repeatedly(cluster, board, as_json=as_json)
        except BrokenPipeError:
            # `| head` has read enough; the interpreter must not try to flush at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Board:
    """The last word of every node; written by one thread per node, read by the one that draws."""

    def __init__(self, nodes: Sequence[Node], interval_s: float) -> None:
        self.interval_s = interval_s
        self._nodes = tuple(nodes)
        self._lock = threading.Lock()
        self._leave = threading.Event()
        self._samples: dict[str, tuple[float, NodeSample]] = {}
        self._problems: dict[str, str] = {}

    def views(self) -> list[NodeView]:
        """Every node as it is now."""
        now_s = time.monotonic()
        with self._lock:
            samples, problems = dict(self._samples), dict(self._problems)
        return [
            NodeView(
                node=node.name,
                sample=samples[node.name][1] if node.name in samples else None,
                age_s=now_s - samples[node.name][0] if node.name in samples else None,
                problem=problems.get(node.name),
                interval_s=self.interval_s,
            )
            for node in self._nodes
        ]

    @contextmanager
    def watching(self, shared_dir: str | None) -> Iterator[None]:
        """Threads that follow the nodes while the block runs."""
        # Daemons: one that waits for a dead node must not keep the user from leaving.
        threads = [
            threading.Thread(target=self._follow, args=(node, shared_dir), daemon=True, name=node.name)
            for node in self._nodes
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._leave.set()
            until_s = time.monotonic() + LEAVE_TIMEOUT_S
            for thread in threads:
                thread.join(max(0.0, until_s - time.monotonic()))

    def _follow(self, node: Node, shared_dir: str | None) -> None:
        words = _collect_words(self.interval_s, shared_dir)
        silence_s = SILENT_INTERVALS * self.interval_s + SILENT_SLACK_S
        while not self._leave.is_set():
            try:
                with connect(node, timeout_s=CONNECT_TIMEOUT_S) as remote:
                    reason = self._read(node, remote.stream(words, silence_s=silence_s))
            except NodeUnreachableError as error:
                reason = str(error)
            with self._lock:
                self._problems[node.name] = reason
            self._leave.wait(RETRY_S)

    def _read(self, node: Node, lines: Iterator[str]) -> str:
        """Take samples until the stream ends; gives the reason."""
        words = ""
        for line in lines:
            if self._leave.is_set():
                break
            try:
                sample = from_dict(json.loads(line))
            except (json.JSONDecodeError, SampleInvalid) as error:
                words = str(error) if isinstance(error, SampleInvalid) else line
                continue
            with self._lock:
                self._samples[node.name] = (time.monotonic(), sample)
                self._problems.pop(node.name, None)
        return _why_ended(words)


def _take_one(remote: Remote, shared_dir: str | None) -> NodeSample | KanctlError:
    answer = remote.run([*_collect_words(1.0, shared_dir), "--count", "1"], timeout_s=30)
    try:
        return from_dict(json.loads(answer.stdout))
    except json.JSONDecodeError:
        return KanctlError(_why_ended((answer.stdout.strip().splitlines() or [""])[-1]))
    except SampleInvalid as error:
        return error


def _collect_words(interval_s: float, shared_dir: str | None) -> list[str]:
    words = [NODE_PYTHON, "-m", "kanctl.monitoring.collect", "--interval", f"{interval_s:g}"]
    words += ["--shared-dir", shared_dir] if shared_dir else []
    # What goes wrong comes as a line among the samples; a stream has no other way to bring it.
    return ["sh", "-c", 'exec "$@" 2>&1', "sh", *words]


def _why_ended(last_line: str) -> str:
    if NODE_PYTHON in last_line and "not found" in last_line:
        return f"not provisioned: there is no {shlex.quote(NODE_PYTHON)}; kanctl provision nodes"
    return (
        f"its collector ended: {last_line}" if last_line else "the connection ended: restarted, or its SSH server was?"
    )


def _print_repeatedly(cluster: Cluster, board: Board, *, as_json: bool) -> None:
    while True:
        time.sleep(board.interval_s)
        if as_json:
            print_answer(json.dumps(document(cluster.name, time.time(), board.views())))
        else:
            print_views(board.views(), title=f"{cluster.name}  {time.strftime('%H:%M:%S')}")


def _draw_live(cluster: Cluster, board: Board) -> None:
    from rich.live import Live

    with _keys() as key_within, Live(_drawing(cluster, board), screen=True, auto_refresh=False) as live:
        while key_within(board.interval_s) not in ("q", "Q"):
            live.update(_drawing(cluster, board), refresh=True)
    print_note("left; nothing keeps running on the nodes")


def _drawing(cluster: Cluster, board: Board) -> "Group":
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    views = board.views()
    nodes = Table(*COLUMNS, box=box.SIMPLE_HEAD, title=f"{cluster.name}  {time.strftime('%H:%M:%S')}  q leaves")
    for view in views:
        style = {"ok": "", "stale": "yellow", "connecting": "dim", "no_answer": "red"}[view.state]
        nodes.add_row(*(Text(cell) for cell in node_row(view)), style=style)
    rows = gpu_rows(views)
    gpus = Table(*GPU_COLUMNS, box=box.SIMPLE_HEAD)
    for row in rows:
        gpus.add_row(*(Text(cell) for cell in row))
    return Group(nodes, gpus) if rows else Group(nodes)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits for a key without Enter; the terminal is as before at the end of the block."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _key
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key(seconds: float) -> str:
    is_pressed = bool(select.select([sys.stdin], [], [], seconds)[0])
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if is_pressed else ""


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""
