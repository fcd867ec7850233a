"""The wheel holds one name and everything that an installation needs, and works in a fresh environment."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("cli", "inventory", "kernel", "lab", "monitoring", "playbooks", "trainer")
WANTED = [
    "kanctl/py.typed",
    "kanctl/constraints.txt",
    "kanctl/playbooks/site.yml",
    "kanctl/playbooks/ansible.cfg",
    "kanctl/playbooks/library/kanctl_wheelhouse.py",
    "kanctl/playbooks/roles/trainer/tasks/main.yml",
    "kanctl/playbooks/roles/exporter/templates/kanctl-exporter.service.j2",
    "kanctl/playbooks/roles/node_tuning/filter_plugins/kernel_cmdline.py",
    "kanctl/kernel/cmdline/throughput.args",
    "kanctl/trainer/recipes/tiny.toml",
    "kanctl/inventory/examples/two-nodes/hosts.yml",
    "kanctl/lab/node_files/usr/lib/kanctl-lab/mount-kernel-view",
    "kanctl/monitoring/serve.py",
]


def names_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel from the tree, and one from the source archive made of it."""
    folders = [tmp_path_factory.mktemp("direct"), tmp_path_factory.mktemp("by-sdist")]
    for folder, flags in zip(folders, (["--wheel"], []), strict=True):
        command = [sys.executable, "-m", "build", "--no-isolation", *flags, "--outdir", str(folder), str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    direct, by_sdist = (next(folder.glob("*.whl")) for folder in folders)
    return direct, by_sdist


def test_the_wheel_owns_one_name_and_holds_all_that_is_needed(wheels):
    names = names_of(wheels[0])
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"kanctl"}
    assert [name for name in WANTED if name not in names] == []
    assert [name for name in names if "__pycache__" in name or "/tests/" in name or name.endswith(".pyc")] == []


def test_the_wheel_holds_every_tracked_file_of_its_folders_and_no_other(wheels):
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("the tree is no git checkout")
    tracked = {f"kanctl/{name}" for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    new = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", *FOLDERS], cwd=ROOT, capture_output=True, text=True
    )
    not_yet_tracked = {f"kanctl/{name}" for name in new.stdout.splitlines()}
    inside = {name for name in names_of(wheels[0]) if name.split("/")[1] in FOLDERS}
    assert inside - not_yet_tracked == tracked


def test_the_source_archive_makes_the_same_wheel(wheels):
    direct, by_sdist = wheels
    assert names_of(direct) == names_of(by_sdist)


def test_an_installation_from_the_wheel_works_without_the_checkout(wheels, tmp_path):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # Without what would lead back to the checkout, or to the caller's inventory.
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KANCTL_", "ANSIBLE_"))
    }
    # The dependencies of this very environment, without its kanctl: nothing is downloaded.
    site = next((environment / "lib").glob("python3*")) / "site-packages"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheels[0]], check=True, env=clean
    )
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(*words: object) -> str:
        command = [str(word) for word in words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    package = Path(run(python, "-c", "import kanctl; print(kanctl.__file__)").strip()).parent
    assert package == site / "kanctl"
    kanctl = environment / "bin" / "kanctl"
    assert "provision" in run(kanctl, "--help")
    example = package / "inventory" / "examples" / "two-nodes" / "hosts.yml"
    assert "2 nodes, no mistake" in run(kanctl, "inventory", "check", "--inventory", example)
    ansible = [python, "-m", "ansible", "playbook", "--syntax-check", "-i", example, package / "playbooks" / "site.yml"]
    assert "playbook:" in run("env", f"ANSIBLE_CONFIG={package / 'playbooks' / 'ansible.cfg'}", *ansible)
