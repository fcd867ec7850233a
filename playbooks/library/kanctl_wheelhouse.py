#!/usr/bin/python
"""Builds, on the controller, the wheels that nodes install from: one tar of third-party wheels and kanctl's own wheel.

Runs in the controller's Python, where kanctl is installed. Everything is keyed by content and renamed into place when
whole, so that a killed build leaves nothing that a later one would take for complete.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: kanctl_wheelhouse
short_description: Wheels for nodes are built on the controller
options:
  cache_dir: {description: Folder that keeps what was built, type: path, required: true}
  extras: {description: Extras of kanctl whose packages nodes get, type: list, elements: str, required: true}
  python_version: {description: "Python of the node, such as 3.11.2", type: str, required: true}
  machine: {description: "Architecture of the node, such as x86_64", type: str, required: true}
"""
EXAMPLES = """
- name: Wheels are built
  kanctl_wheelhouse: {cache_dir: ~/.cache/kanctl, extras: [train], python_version: 3.11.2, machine: x86_64}
  delegate_to: localhost
"""
RETURN = """
third_party_tar: {description: Tar of wheels, type: str, returned: always}
third_party_key: {description: Hash of what it was made from, type: str, returned: always}
requirements: {description: Pinned names of its wheels, type: list, returned: when built}
kanctl_wheel: {description: Wheel of kanctl itself, type: str, returned: always}
kanctl_key: {description: Hash of its files, type: str, returned: always}
"""

# Dates inside the wheel are fixed, so that the same files make the same wheel. 1980 is the first year zip knows.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)

# A file in a wheel: its name and its bytes.
Content = tuple[str, bytes]

# The part of a requirement's marker that names its extra.
EXTRA = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


class WheelhouseError(Exception):
    """Why there are no wheels, and what to do."""


def package_contents(package_dir: Path) -> list[Content]:
    """Files of the installed package as (name in the wheel, bytes), sorted; links to folders are followed."""
    found = []
    for folder, names, files in os.walk(package_dir, followlinks=True):
        names[:] = sorted(n for n in names if n != "__pycache__")
        for file in files:
            path = Path(folder, file)
            if path.suffix != ".pyc":
                found.append((str(Path(package_dir.name, path.relative_to(package_dir))), path.read_bytes()))
    return sorted(found)


def hash_of(parts: Iterable[bytes]) -> str:
    """A short hash of byte strings."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def third_party_requirements(requires: Iterable[str], extras: Iterable[str]) -> list[str]:
    """The requirement lines of some extras. Lines without an extra are the controller's own and stay out."""
    lines = []
    for line in requires:
        requirement, _, marker = line.partition(";")
        extra = EXTRA.search(marker)
        if extra and extra[1] in extras and not requirement.strip().startswith("kanctl"):
            # What else the marker asks of the Python is pip's to judge.
            rest = re.sub(r"^\s*and\s+|\s+and\s*$", "", EXTRA.sub("", marker)).strip()
            lines.append("; ".join([requirement.strip(), rest] if rest else [requirement.strip()]))
    return sorted(set(lines))


def pinned_name(wheel_name: str) -> str:
    """`torch-2.13.0-cp311-...whl` as `torch==2.13.0`."""
    name, version = wheel_name.split("-")[:2]
    return f"{name}=={version}"


def make_kanctl_wheel(target: Path, package: Sequence[Content], version: str, metadata: str) -> None:
    """Write kanctl's wheel from the contents of the installed package; a checkout and a wheel give the same."""
    info = f"kanctl-{version}.dist-info"
    wheel_file = "Wheel-Version: 1.0\nGenerator: kanctl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents = [*package, (f"{info}/METADATA", metadata.encode()), (f"{info}/WHEEL", wheel_file.encode())]
    record = "".join(f"{name},,\n" for name, _ in contents) + f"{info}/RECORD,,\n"
    partial = target.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*contents, (f"{info}/RECORD", record.encode())]:
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content, zipfile.ZIP_DEFLATED)
    finish(partial, target)


def build_third_party(target: Path, requirements: Iterable[str], constraints: Path) -> None:
    """Collect the wheels with this Python's pip and pack them into one tar."""
    # A name of its own: the pip of a build that was killed may still write into its folder.
    partial = Path(tempfile.mkdtemp(prefix=f"{target.stem}-", suffix=".part", dir=target.parent))
    try:
        words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        words += ["--wheel-dir", str(partial), "--constraint", str(constraints), *requirements]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            tail = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise WheelhouseError(f"pip could not collect the wheels: {tail}. Next: see that pip reaches its index.")
        packed = target.with_suffix(".tar.part")
        with tarfile.open(packed, "w") as archive:
            for wheel in sorted(partial.glob("*.whl")):
                archive.add(wheel, arcname=wheel.name)
        finish(packed, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def finish(partial: Path, target: Path) -> None:
    """Give a file its name once it is whole on the disk, so that a power cut leaves no empty one of that name."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, target)


def clean(cache_dir: Path) -> None:
    """Remove what killed builds left; the caller holds the lock, so none is at work."""
    for leftover in cache_dir.glob("**/*.part"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def python_and_machine(python_version: str, machine: str) -> tuple[str, str]:
    """What wheels depend on: `3.11.2` on `x86_64` is 3.11 on x86_64."""
    return ".".join(python_version.split(".")[:2]), machine


def check_controller(python_version: str, machine: str) -> None:
    """Wheels fit one Python and one architecture: the controller's."""
    wanted = python_and_machine(python_version, machine)
    found = python_and_machine(platform.python_version(), platform.machine())
    if wanted != found:
        raise WheelhouseError(
            f"Wanted: wheels for Python {wanted[0]} on {wanted[1]}. Found: this controller has Python {found[0]} on"
            f" {found[1]}. Next: run kanctl with Python {wanted[0]}, for example in a venv of that version."
        )


def check_extras(extras: Sequence[str], known: Sequence[str]) -> None:
    """An extra that kanctl does not have would leave the node without packages, and nobody would be told."""
    wrong = [extra for extra in extras if extra not in known]
    if wrong or not extras:
        raise WheelhouseError(
            f"Wanted: extras of kanctl among {', '.join(known)}. Found: {', '.join(wrong) or 'none'}."
            " Next: correct trainer_extras."
        )


def provide(cache_dir: Path, extras: Sequence[str], check_mode: bool) -> dict[str, Any]:
    """What the module returns; builds what is missing unless in check mode."""
    import kanctl

    package_dir = Path(kanctl.__file__).parent
    distribution = importlib.metadata.distribution("kanctl")
    constraints = package_dir / "constraints.txt"
    check_extras(extras, distribution.metadata.get_all("Provides-Extra") or [])
    requirements = third_party_requirements(distribution.requires or [], extras)
    names = "\n".join([*requirements, *python_and_machine(platform.python_version(), platform.machine())])
    third_party_key = hash_of([constraints.read_bytes(), names.encode()])
    package = package_contents(package_dir)
    kanctl_key = hash_of(part for name, content in package for part in (name.encode(), content))
    tar = cache_dir / f"third-party-{third_party_key}.tar"
    wheel = cache_dir / kanctl_key / f"kanctl-{distribution.version}-py3-none-any.whl"
    missing = [path for path in (tar, wheel) if not path.is_file()]
    if missing and not check_mode:
        clean(cache_dir)
        wheel.parent.mkdir(parents=True, exist_ok=True)
        if tar in missing:
            build_third_party(tar, requirements, constraints)
        if wheel in missing:
            make_kanctl_wheel(wheel, package, distribution.version, distribution.read_text("METADATA") or "")
    result: dict[str, Any] = {
        "third_party_tar": str(tar),
        "third_party_key": third_party_key,
        "kanctl_wheel": str(wheel),
        "kanctl_key": kanctl_key,
        # The controller's cache is no state of a node, so building it is not a change of one.
        "changed": False,
    }
    if tar.is_file():
        with tarfile.open(tar) as archive:
            result["requirements"] = [pinned_name(name) for name in archive.getnames()]
    return result


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(  # type: ignore[no-untyped-call]
        argument_spec={
            "cache_dir": {"type": "path", "required": True},
            "extras": {"type": "list", "elements": "str", "required": True},
            "python_version": {"type": "str", "required": True},
            "machine": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    cache_dir = Path(module.params["cache_dir"])
    try:
        check_controller(module.params["python_version"], module.params["machine"])
        if module.check_mode:
            module.exit_json(**provide(cache_dir, module.params["extras"], check_mode=True))
        cache_dir.mkdir(parents=True, exist_ok=True)
        # All nodes ask at once; one builds, the others wait and find it built.
        with (cache_dir / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            module.exit_json(**provide(cache_dir, module.params["extras"], check_mode=False))
    except (WheelhouseError, ImportError, importlib.metadata.PackageNotFoundError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        next_step = "free space there, or set trainer_wheelhouse_dir to another folder"
        module.fail_json(msg=f"Wanted: wheels in {cache_dir}. Found: {error}. Next: {next_step}.")


if __name__ == "__main__":
    main()
