"""The module that builds wheels on the controller: what goes in, and that nothing half built is taken for whole."""

import json
import os
import socket
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import kanctl
from kanctl.cli.playbook_code import load_playbook_code

PATH = Path(__file__).parents[2] / "playbooks/library/kanctl_wheelhouse.py"
wheelhouse = load_playbook_code("library/kanctl_wheelhouse.py")

METADATA = "Metadata-Version: 2.1\nName: kanctl\nVersion: 9.9\n"
PACKAGE = [("kanctl/__init__.py", b"word = 'hello'\n"), ("kanctl/data/words.txt", b"a b c\n")]


def test_requirements_are_those_of_the_extras_alone():
    requires = [
        "typer>=0.15",
        "torch<2.14,>=2.11; extra == 'train'",
        'psutil<8,>=7; extra == "monitor"',
        "psutil<8,>=7; extra == 'train'",
        "kanctl[train,monitor]; extra == 'dev'",
        "ruff; extra == 'dev'",
        "tomli; python_version < '3.11' and extra == 'train'",
    ]

    found = wheelhouse.third_party_requirements(requires, ["train", "monitor"])
    assert found == ["psutil<8,>=7", "tomli; python_version < '3.11'", "torch<2.14,>=2.11"]


def test_names_of_wheels_become_pins():
    assert wheelhouse.pinned_name("torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl") == "torch==2.13.0+cpu"
    # A wheel's name has underscores where the distribution has hyphens; pip takes both for the same.
    assert wheelhouse.pinned_name("nvidia_ml_py-13.610.43-py3-none-any.whl") == "nvidia_ml_py==13.610.43"


def test_a_hash_knows_where_a_part_ends():
    assert wheelhouse.hash_of([b"ab", b"c"]) == wheelhouse.hash_of([b"ab", b"c"])
    assert wheelhouse.hash_of([b"ab", b"c"]) != wheelhouse.hash_of([b"a", b"bc"])


def test_contents_follow_links_and_leave_byte_code_out(tmp_path):
    package = tmp_path / "kanctl"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "x.pyc").write_bytes(b"")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "train.py").write_text("pass\n")
    (package / "trainer").symlink_to("../trainer")
    (package / "__init__.py").write_text("")

    found = wheelhouse.package_contents(package)
    assert found == [("kanctl/__init__.py", b""), ("kanctl/trainer/train.py", b"pass\n")]


def test_the_same_files_make_the_same_wheel(tmp_path):
    one, two = tmp_path / "one.whl", tmp_path / "two.whl"
    for target in (one, two):
        wheelhouse.make_kanctl_wheel(target, PACKAGE, "9.9", METADATA)

    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.whl", "two.whl"]


def test_pip_installs_the_wheel_of_this_package_without_an_index(tmp_path):
    package = wheelhouse.package_contents(Path(kanctl.__file__).parent)
    target = tmp_path / "kanctl-9.9-py3-none-any.whl"
    wheelhouse.make_kanctl_wheel(target, package, "9.9", METADATA)
    venv.create(tmp_path / "venv")
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--disable-pip-version-check", str(target)], check=True, capture_output=True)

    read = "import kanctl, kanctl.monitoring, kanctl.trainer; print(kanctl.__version__, kanctl.__file__)"
    # Not from the checkout: its folder is neither the current one nor on the path.
    done = subprocess.run([python, "-I", "-c", read], capture_output=True, text=True, cwd=tmp_path, check=True)
    version, file = done.stdout.split()
    assert version == kanctl.__version__
    assert file.startswith(str(tmp_path))
    installed = Path(file).parent
    assert (installed / "playbooks" / "site.yml").is_file()
    with zipfile.ZipFile(target) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"kanctl", "kanctl-9.9.dist-info"}


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder of wheels that is pip's only source; it has one, of a kanctl 9.9."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheelhouse.make_kanctl_wheel(folder / "kanctl-9.9-py3-none-any.whl", PACKAGE, "9.9", METADATA)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    (tmp_path / "constraints.txt").write_text("kanctl==9.9\n")
    return folder


@pytest.fixture
def cache(tmp_path) -> Path:
    """The folder that keeps what was built."""
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def test_collected_wheels_are_one_tar(index, cache, tmp_path):
    wheelhouse.build_third_party(cache / "w.tar", ["kanctl"], tmp_path / "constraints.txt")

    assert [path.name for path in cache.iterdir()] == ["w.tar"]
    with tarfile.open(cache / "w.tar") as archive:
        assert archive.getnames() == ["kanctl-9.9-py3-none-any.whl"]


def test_what_pip_cannot_find_is_told_and_leaves_nothing(index, cache, tmp_path):
    with pytest.raises(wheelhouse.WheelhouseError, match=r"nosuchthing.*Next: see that pip reaches its index"):
        wheelhouse.build_third_party(cache / "w.tar", ["nosuchthing"], tmp_path / "constraints.txt")
    assert list(cache.iterdir()) == []


def test_a_killed_build_leaves_nothing_that_looks_whole(index, cache, tmp_path):
    build = "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import kanctl_wheelhouse as w"
    build += "; w.build_third_party(pathlib.Path(sys.argv[2]), ['kanctl'], pathlib.Path(sys.argv[3]))"
    words = [sys.executable, "-c", build, str(PATH.parent), str(cache / "w.tar"), str(tmp_path / "constraints.txt")]
    # An index that takes the question and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | {"PIP_INDEX_URL": url}
        process = subprocess.Popen(words, env=environment, start_new_session=True)
        silent.settimeout(30)
        silent.accept()[0].close()
        os.killpg(process.pid, 9)
        process.wait(timeout=10)

    assert [path.suffix for path in cache.iterdir()] == [".part"]
    wheelhouse.clean(cache)
    assert list(cache.iterdir()) == []
    wheelhouse.build_third_party(cache / "w.tar", ["kanctl"], tmp_path / "constraints.txt")
    assert [path.name for path in cache.iterdir()] == ["w.tar"]


@pytest.mark.parametrize(("python_version", "machine"), [("3.6.9", "x86_64"), (None, "riscv64")])
def test_wheels_for_another_python_or_machine_are_refused_with_the_way_out(python_version, machine):
    own = ".".join(map(str, sys.version_info[:3]))
    with pytest.raises(wheelhouse.WheelhouseError, match=rf"Wanted: wheels for Python .* on {machine}.*Next: run"):
        wheelhouse.check_controller(python_version or own, machine)


def test_extras_that_kanctl_lacks_are_refused():
    for extras, found in ((["trian"], "trian"), ([], "none")):
        with pytest.raises(wheelhouse.WheelhouseError, match=f"Found: {found}"):
            wheelhouse.check_extras(extras, ["train", "monitor"])


def test_check_mode_builds_nothing_and_says_where_it_would_be(tmp_path):
    """The module as Ansible runs it."""
    cache = tmp_path / "cache"
    arguments = f"cache_dir={cache} extras=monitor machine=%s python_version={sys.version.split()[0]}"
    words = [str(Path(sys.executable).parent / "ansible"), "localhost", "-i", "localhost,", "-c", "local", "--check"]
    words += ["-M", str(PATH.parent), "-m", PATH.stem, "-e", f"ansible_python_interpreter={sys.executable}", "-a"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}

    def ask(machine: str) -> dict:
        done = subprocess.run([*words, arguments % machine], env=environment, capture_output=True, text=True)
        return json.loads(done.stdout.partition("=> ")[2])

    answer = ask(os.uname().machine)
    assert answer["third_party_tar"].startswith(f"{cache}/third-party-")
    assert answer["kanctl_wheel"].endswith(f"/kanctl-{kanctl.__version__}-py3-none-any.whl")
    assert (answer["changed"], "requirements" in answer) == (False, False)
    assert not cache.exists()
    assert "on riscv64" in ask("riscv64")["msg"]
