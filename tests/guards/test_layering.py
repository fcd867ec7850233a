"""Who may import whom (docs/decisions.md and DESIGN's walls), and how long files and functions may get."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("inventory", "kernel", "monitoring", "trainer", "lab", "cli", "playbooks")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")) + sorted(
    (ROOT / "kanctl").glob("*.py")
)
CROSSES = {"trainer/train.py"}
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
# Catching everything is for the place that turns errors into messages.
MAY_CATCH_ALL = {"cli/app.py"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Names imported, by statement or by name at run time, with their depth of dots, anywhere in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
            if node.module == "kanctl" and not node.level:
                found += [(f"kanctl.{alias.name}", 0) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
            found.append((name.lstrip("."), len(name) - len(name.lstrip("."))))
    return found


per_file = pytest.mark.parametrize("path", FILES, ids=relative)


@per_file
def test_folders_do_not_reach_into_one_another(path):
    own = path.relative_to(ROOT).parts[0]
    if own == "cli" or relative(path) in CROSSES:
        return
    for name, level in imports_of(path):
        parts = name.split(".")
        is_other_folder = (
            not level and parts[0] == "kanctl" and len(parts) > 1 and parts[1] in FOLDERS and parts[1] != own
        )
        assert not is_other_folder, f"{relative(path)} imports {name}"


@per_file
def test_no_file_is_imported_under_a_second_name(path):
    for name, level in imports_of(path):
        assert level or name.split(".")[0] not in FOLDERS, f"{relative(path)} imports {name} without kanctl."
        depth = len(path.relative_to(ROOT).parts) - 1
        assert level <= depth, f"{relative(path)} climbs out of its folder"


@per_file
def test_one_door_each_to_deepspeed_nvml_and_ansible_runner(path):
    doors = {
        "deepspeed": "trainer/engine.py",
        "pynvml": "monitoring/nvml.py",
        "ansible_runner": "cli/run_ansible.py",
        "fabric": "cli/remote.py",
    }
    for name, level in imports_of(path):
        door = doors.get(name.split(".")[0]) if not level else None
        assert door in {None, relative(path)}, f"{relative(path)} imports {name}; only {door} may"


@per_file
def test_nobody_catches_everything(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and relative(path) not in MAY_CATCH_ALL:
            names = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
            caught = {name.id for name in names if isinstance(name, ast.Name)}
            assert node.type is not None, f"{relative(path)}:{node.lineno}"
            assert not caught & {"Exception", "BaseException"}, f"{relative(path)}:{node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            assert not {ast.unparse(word) for word in node.args} & {"Exception", "BaseException"}, relative(path)


@per_file
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= FILE_LINES_MAX
    assert path.name not in {"utils.py", "helpers.py", "misc.py"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{relative(path)}:{node.name} has {lines} lines"


@per_file
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text())), relative(path)


def test_every_link_of_the_package_leads_to_its_folder():
    links = {path.name: path.readlink() for path in (ROOT / "kanctl").iterdir() if path.is_symlink()}
    assert links == {name: Path("..") / name for name in FOLDERS}
