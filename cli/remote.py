"""SSH to nodes with fabric: the one door through which launches, probes and telemetry reach a machine.

Host keys are always checked (fabric alone would accept any). Commands are lists of words, quoted here, so no value
ever reaches a shell unquoted. What changes a node's state is Ansible's work, not this file's.
"""

import io
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fabric import Config, Connection
from invoke.exceptions import CommandTimedOut
from paramiko import RejectPolicy
from paramiko.ssh_exception import AuthenticationException, BadHostKeyException, SSHException

from kanctl.errors import KanctlError, NodeUnreachableError
from kanctl.inventory import Node

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command on a node left behind."""

    node: str
    words: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def require(self) -> str:
        """The command's stdout. Raises KanctlError with the last lines of its stderr when it failed."""
        if self.code != 0:
            tail = "\n".join((self.stderr or self.stdout).strip().splitlines()[-5:])
            raise KanctlError(f"{self.node}: `{shlex.join(self.words)}` ended with {self.code}: {tail}")
        return self.stdout


class _WholeText(io.StringIO):
    """A command's stdin that invoke gets in one piece; by itself it asks for one character every 10 ms."""

    def read(self, size: int | None = -1, /) -> str:
        return super().read()


class Remote:
    """An open connection to one node."""

    def __init__(self, node: Node, connection: Connection) -> None:
        self.node = node
        self._connection = connection

    def run(
        self,
        words: Sequence[str],
        *,
        timeout_s: float = 60,
        stdin: str | None = None,
        as_root: bool = False,
    ) -> Answer:
        """Run a command to its end, whatever its exit status. Raises NodeUnreachableError when the link is lost."""
        command = shlex.join(self._elevated(words, as_root))
        try:
            result = self._connection.run(
                command,
                hide=True,
                warn=True,
                timeout=timeout_s,
                in_stream=_WholeText(stdin) if stdin is not None else False,
            )
        except CommandTimedOut as error:
            raise NodeUnreachableError(
                f"{self.node.name}: no end of `{command}` within {timeout_s:g} s",
                f"kanctl health check --limit {self.node.name}",
            ) from error
        except (SSHException, OSError, EOFError) as error:
            raise _unreachable(self.node, error) from error
        return Answer(
            node=self.node.name, words=tuple(words), code=result.exited, stdout=result.stdout, stderr=result.stderr
        )

    def stream(self, words: Sequence[str], *, as_root: bool = False, silence_s: float | None = None) -> Iterator[str]:
        """Lines of a command's stdout as they come, until it ends or the caller stops asking.

        `silence_s`: no line for so long means that the link is lost, and raises NodeUnreachableError; a machine that
        loses its power says no goodbye. Without it a silent command is waited for without end.
        """
        client = self._connection.client
        assert client is not None
        try:
            _, stdout, _ = client.exec_command(  # type: ignore[no-untyped-call]
                shlex.join(self._elevated(words, as_root)), timeout=silence_s
            )
            with stdout.channel:
                for line in stdout:
                    yield line.rstrip("\n")
        except TimeoutError as error:
            raise NodeUnreachableError(
                f"{self.node.name} has been silent for {silence_s:g} s", "has it lost its power or its network?"
            ) from error
        except (SSHException, OSError, EOFError) as error:
            raise _unreachable(self.node, error) from error

    def write_text(self, path: str, text: str) -> None:
        """Write a file on the node, readable by all, complete or not at all."""
        partial = f"{path}.part"
        self.run(["tee", partial], stdin=text).require()
        self.run(["mv", partial, path]).require()

    def read_text(self, path: str) -> str | None:
        """A file's text, None when there is no such file."""
        answer = self.run(["cat", path])
        return answer.stdout if answer.code == 0 else None

    def upload(self, source: Path, target: str) -> None:
        """Copy one file to the node over SFTP."""
        try:
            self._connection.put(str(source), target)  # type: ignore[no-untyped-call]
        except (SSHException, EOFError) as error:
            raise _unreachable(self.node, error) from error

    def _elevated(self, words: Sequence[str], as_root: bool) -> list[str]:
        return ["sudo", "-n", *words] if as_root and self.node.user != "root" else list(words)


@contextmanager
def connect(node: Node, *, timeout_s: float = 10) -> Iterator[Remote]:
    """An open connection to a node, closed at the end of the block. Raises NodeUnreachableError."""
    connection = _make_connection(node, timeout_s)
    try:
        connection.open()  # type: ignore[no-untyped-call]
    except (SSHException, OSError, EOFError) as error:
        raise _unreachable(node, error) from error
    try:
        yield Remote(node, connection)
    finally:
        connection.close()  # type: ignore[no-untyped-call]


def on_every_node(nodes: Sequence[Node], action: Callable[[Remote], T]) -> dict[str, T | NodeUnreachableError]:
    """Run `action` on all nodes at once; a node that cannot be reached is an entry with its error, never a crash."""

    def visit(node: Node) -> T | NodeUnreachableError:
        try:
            with connect(node) as remote:
                return action(remote)
        except NodeUnreachableError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, min(32, len(nodes)))) as pool:
        return dict(zip([node.name for node in nodes], pool.map(visit, nodes), strict=True))


def _make_connection(node: Node, timeout_s: float) -> Connection:
    keys = {"key_filename": str(node.private_key_file.expanduser())} if node.private_key_file else {}
    connection = Connection(  # type: ignore[no-untyped-call]
        node.address,
        user=node.user,
        port=node.port,
        config=Config(lazy=True),  # type: ignore[no-untyped-call]
        connect_timeout=int(timeout_s),
        connect_kwargs={**keys, "banner_timeout": timeout_s, "auth_timeout": timeout_s},
    )
    assert connection.client is not None
    known_hosts = (node.known_hosts_file or Path("~/.ssh/known_hosts")).expanduser()
    if known_hosts.is_file():
        connection.client.load_host_keys(str(known_hosts))  # type: ignore[no-untyped-call]
    connection.client.set_missing_host_key_policy(RejectPolicy())  # type: ignore[no-untyped-call]
    return connection


def _unreachable(node: Node, error: Exception) -> NodeUnreachableError:
    where = f"{node.name} ({node.user}@{node.address}:{node.port})"
    known_hosts = node.known_hosts_file or "~/.ssh/known_hosts"
    if isinstance(error, BadHostKeyException):
        return NodeUnreachableError(
            f"{where} shows another host key than the one in {known_hosts}: reinstalled, or not the machine you mean",
            f"if it was reinstalled: ssh-keygen -f {known_hosts} -R {_known_name(node)}, then ssh to it once",
        )
    if isinstance(error, AuthenticationException):
        return NodeUnreachableError(f"{where} refused the login: {error}", "check ansible_user and the private key")
    if "not found in known_hosts" in str(error):
        return NodeUnreachableError(
            f"{where} is not in {known_hosts}",
            f"ssh -p {node.port} {node.user}@{node.address}, compare the key, accept it",
        )
    return NodeUnreachableError(
        f"{where} cannot be reached: {str(error) or type(error).__name__}", "is it up, and is sshd running?"
    )


def _known_name(node: Node) -> str:
    return node.address if node.port == 22 else f"'[{node.address}]:{node.port}'"
