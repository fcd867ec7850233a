"""Habits of the house that a reader relies on in every file, beyond who may import whom (test_layering.py)."""

import ast

FOLDERS = ("cli", "inventory", "kernel", "lab", "monitoring", "playbooks", "trainer")
COMMAND_LINES_MAX = 25


def folder_of(name):
    """The top-level folder that an import name of ours leads to, None for other names."""
    parts = name.split(".")
    return parts[1] if parts[0] == "kanctl" and len(parts) > 1 and parts[1] in FOLDERS else None


def nodes_of(sources, kind):
    return [(source, node) for source in sources for node in ast.walk(source.tree) if isinstance(node, kind)]


def test_imports_are_relative_inside_a_folder_and_absolute_across(sources):
    breaches = [
        f"{source.path}:{line}: {name}"
        for source in sources
        for name, line, is_relative in source.imports()
        if name.startswith("kanctl.") and is_relative != (folder_of(name) == source.path.parts[0])
    ]
    assert not breaches


def test_of_kanctl_itself_only_the_version_and_the_errors_are_imported(sources):
    breaches = [
        f"{source.path}:{line}: {name}"
        for source in sources
        for name, line, _ in source.imports()
        if name.startswith("kanctl.") and folder_of(name) is None
        if name != "kanctl.__version__" and not name.startswith(("kanctl.errors.", "kanctl.programs"))
    ]
    assert not breaches


def test_nobody_but_cli_imports_cli_and_nobody_playbooks(sources):
    breaches = [
        f"{source.path}:{line}: {name}"
        for source in sources
        for name, line, _ in source.imports()
        if folder_of(name) in {"cli", "playbooks"} and folder_of(name) != source.path.parts[0]
    ]
    assert not breaches


def test_tests_import_under_the_one_name_too(test_sources):
    breaches = [
        f"{source.path}:{line}: {name}"
        for source in test_sources
        for name, line, is_relative in source.imports()
        if not is_relative and name.split(".")[0] in FOLDERS
    ]
    assert not breaches


def test_no_module_changes_its_own_globals(sources):
    assert [f"{source.path}:{node.lineno}" for source, node in nodes_of(sources, ast.Global)] == []


def test_in_cli_only_output_prints(sources):
    breaches = [
        f"{source.path}:{node.lineno}"
        for source, node in nodes_of(sources, ast.Call)
        if source.path.parts[0] == "cli" and source.path.name != "output.py"
        if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not breaches


def test_no_shell_is_given_a_line_of_text(sources):
    breaches = [
        f"{source.path}:{node.lineno}"
        for source, node in nodes_of(sources, ast.Call)
        if any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords)
        or ast.unparse(node.func) in {"os.system", "os.popen", "subprocess.getoutput"}
    ]
    assert not breaches


def test_a_command_reads_its_arguments_calls_and_renders(sources):
    breaches = []
    for source, function in nodes_of(sources, ast.FunctionDef):
        if source.path.parts[:2] == ("cli", "commands"):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if length > COMMAND_LINES_MAX:
                breaches.append(f"{source.path}:{function.lineno}: {function.name}: {length} lines")
    assert not breaches
