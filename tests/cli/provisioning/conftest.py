"""Small clusters of this very machine, for playbooks that only touch a folder of the test."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLAYBOOKS = Path(__file__).parent / "playbooks"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A data folder of the test's own."""
    monkeypatch.setenv("KANCTL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path) -> Path:
    """What the playbooks may change."""
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def make_inventory(tmp_path, folder) -> Callable[..., Path]:
    """Writes an inventory: local nodes by name, and `gone` ones at whose port nobody listens."""

    def make(*names: str, gone: tuple[str, ...] = (), **variables: object) -> Path:
        local = f"{{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}"
        lines = ["all:", "  vars:", f"    greet_folder: {folder}"]
        lines += [f"    {name}: {value}" for name, value in variables.items()]
        lines += ["  children:", "    nodes:", "      hosts:", *(f"        {name}: {local}" for name in names)]
        lines += [f"        {name}: {{ansible_host: 127.0.0.1, ansible_port: 1}}" for name in gone]
        path = tmp_path / "hosts.yml"
        path.write_text("\n".join(lines) + "\n")
        return path

    return make


@pytest.fixture
def playbooks() -> Path:
    """The playbooks of these tests."""
    return PLAYBOOKS
