"""The probe runs anywhere with nothing but Python, and its document is what facts.py reads."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

from kanctl.monitoring.health import probe
from kanctl.monitoring.health.facts import facts_from_dict

SOURCE = Path(probe.__file__).read_text()


def run_piped(request: dict) -> object:
    """As over SSH: the source on stdin of an isolated Python."""
    words = [sys.executable, "-I", "-S", "-", json.dumps(request)]
    done = subprocess.run(words, input=SOURCE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_probe_imports_only_the_standard_library():
    nodes = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes}
    assert {str(name).split(".")[0] for name in names} <= sys.stdlib_module_names


def test_probe_piped_into_a_bare_python_gives_complete_facts(tmp_path):
    request = {"name": "a", "shared_dir": str(tmp_path), "token": ".t", "venv": sys.prefix}
    facts = facts_from_dict(run_piped(request))

    assert facts.memory_total_bytes > 0
    assert facts.root_file_system.path == "/"
    assert facts.shared is not None
    assert facts.shared.error is None
    assert facts.versions["kernel"]
    assert facts.versions["torch"]


def test_nodes_see_each_others_files_until_they_are_removed(tmp_path):
    request = {"shared_dir": str(tmp_path), "token": ".t"}
    for name in ("a", "b"):
        assert probe.write_token(str(tmp_path), ".t", name)["error"] is None

    assert run_piped({**request, "do": "seen"}) == ["a", "b"]
    run_piped({**request, "do": "remove"})
    assert run_piped({**request, "do": "seen"}) == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_shared_folder_is_named_and_not_made(tmp_path):
    state = probe.shared(str(tmp_path / "gone"), ".t", "a")

    assert state is not None
    assert state["error"] == "there is no such folder"
    assert not (tmp_path / "gone").exists()


def test_a_hanging_folder_does_not_hang_the_probe():
    start = time.monotonic()

    assert probe.within(0.2, lambda: time.sleep(60)) is None
    assert time.monotonic() - start < 5


def test_a_port_nobody_listens_on_is_an_answer_and_no_crash():
    (answer,) = probe.reach_all([{"name": "b", "address": "127.0.0.1", "port": 1}])

    assert answer["ms"] is None
    assert "refused" in answer["error"]
