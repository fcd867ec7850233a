"""Help comes at once: nothing heavy is imported before it is needed."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import kanctl

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "deepspeed", "ansible", "ansible_runner", "rich", "fabric", "paramiko", "numpy", "pynvml")
HELP_CPU_S_MAX = 0.2


def loaded_by(*words: str) -> set[str]:
    """Top-level packages that a Python process has loaded at its end."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, timeout=60)
    names = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "kanctl" in names, done.stderr[-500:]
    return names


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["train", "launch", "--help"]])
def test_help_loads_nothing_heavy(words):
    assert loaded_by("-m", "kanctl.cli", *words) & set(HEAVY) == set()


@pytest.mark.parametrize("group", ["lab", "inventory", "provision", "health", "telemetry"])
def test_help_of_every_group_loads_neither_torch_nor_ansible(group):
    assert loaded_by("-m", "kanctl.cli", group, "--help") & {"torch", "deepspeed", "ansible", "ansible_runner"} == set()


def test_no_module_loads_torch_but_those_that_compute_with_it():
    folders = ("inventory", "kernel", "lab", "monitoring", "cli")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = [f"kanctl.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}" for path in paths]
    wanted = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = f"import importlib, sys\nfor name in {wanted!r}: importlib.import_module(name)\n"
    code += "sys.exit(', '.join({'torch', 'deepspeed', 'ansible'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_help_takes_at_most_a_fifth_of_a_second():
    # The processor's time, not the clock's: other work on the machine does not count.
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "kanctl.cli", "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if spent_s <= HELP_CPU_S_MAX:
            return
    pytest.fail(f"kanctl --help took {spent_s:.2f} s of the processor")


def test_importing_does_nothing(tmp_path):
    # No HOME to read, no PATH to find tools on, an empty folder to leave traces in.
    environment = {"HOME": str(tmp_path / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import kanctl.cli.app, kanctl.cli.demo, kanctl.cli.remote, kanctl.lab.containers, kanctl.monitoring.serve"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_one_line():
    done = subprocess.run([sys.executable, "-m", "kanctl.cli", "--version"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"kanctl {kanctl.__version__}\n")
