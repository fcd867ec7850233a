"""The root file system that all nodes share: built once with mmdebstrap, kept by the hash of what it is made from."""

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kanctl import programs

from . import mounts, processes, tools
from .apt_sources import Release, Source, kept_apt_options, read_release, read_sources
from .errors import LabError

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "openssh-server",
    # The full one: Ansible's modules need more of the standard library than python3-minimal holds.
    "python3",
    "python3-apt",
    "python3-venv",
    "sudo",
    "iproute2",
    "iputils-ping",
    "procps",
    "netbase",
    "ca-certificates",
    # Preinstalled because every provisioning asks for them: nodes then need no package index for the base roles.
    "chrony",
    "bubblewrap",
)
DPKG_OPTIONS = (
    # Nodes are thrown away, so dpkg need not wait for the disk; also holds for packages installed later inside.
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
)
# What mmdebstrap needs while it works: 260 MiB of tree, the packages it downloads, and room to spare.
BUILD_SPACE_MIB = 1500
LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
# Raise when what hooks() does changes.
RECIPE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RootfsInputs:
    """Everything that decides what the tree holds."""

    release: Release
    architecture: str
    sources: tuple[Source, ...]
    apt_options: tuple[str, ...]
    certificates_sha256: str
    packages: tuple[str, ...] = PACKAGES
    dpkg_options: tuple[str, ...] = DPKG_OPTIONS
    recipe_version: int = RECIPE_VERSION

    def content_hash(self) -> str:
        """Twelve hex digits that change when any input does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def read_inputs(packages: tuple[str, ...] = PACKAGES) -> RootfsInputs:
    """The inputs as this machine has them."""
    release = read_release()
    return RootfsInputs(
        packages=packages,
        release=release,
        architecture=platform.machine(),
        sources=read_sources(release),
        apt_options=kept_apt_options(tools.run(["apt-config", "dump"])),
        certificates_sha256=_hash_certificates(LOCAL_CERTIFICATES),
    )


def ensure_rootfs(cache_root: Path, progress: Callable[[str], None]) -> Path:
    """The unpacked tree for this machine's inputs, built when it is not in the cache yet. Raises LabError."""
    inputs = read_inputs()
    tree = cache_root / f"rootfs-{inputs.content_hash()}"
    remove_leftovers(cache_root)
    if tree.is_dir():
        return tree
    cache_root.mkdir(parents=True, exist_ok=True)
    require_space(cache_root, BUILD_SPACE_MIB, "to build the nodes' root file system")
    progress(f"building the nodes' root file system ({inputs.release.codename}, about two minutes, once)")
    partial = cache_root / f"building-{os.getpid()}"
    try:
        build_tree(inputs, partial, progress)
        partial.rename(tree)
    finally:
        remove_tree(partial)
    progress(f"root file system kept in {tree}")
    return tree


def require_space(folder: Path, wanted_mib: int, purpose: str) -> None:
    """Raises LabError when the disk under `folder` has less free space. Shown by `df -m FOLDER`."""
    free_mib = shutil.disk_usage(folder).free // 2**20
    if free_mib < wanted_mib:
        raise LabError(
            f"wanted {wanted_mib} MiB free in {folder} {purpose}, found {free_mib} MiB", f"free space: df -h {folder}"
        )


def build_tree(
    inputs: RootfsInputs, target: Path, progress: Callable[[str], None], more_hooks: Sequence[str] = ()
) -> None:
    """Unpack the packages into the new folder `target`. Raises LabError."""

    def on_line(line: str) -> None:
        # mmdebstrap marks its own steps with "I: "; the rest is apt and dpkg. Hooks are shown with all their text.
        if line.startswith("I: ") and "-hook in shell" not in line:
            progress(f"  {line[3:]}")

    # mmdebstrap hands its environment to every maintainer script; the caller's Python and locale have no place there.
    environment = {key: os.environ[key] for key in ("PATH", "http_proxy", "https_proxy") if key in os.environ}
    try:
        programs.run_with_progress(
            mmdebstrap_words(inputs, target, more_hooks),
            stdin="".join(f"{source.to_line()}\n" for source in inputs.sources),
            environment=environment | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            on_line=on_line,
        )
    except programs.ProgramFailed as error:
        raise LabError(
            f"the nodes' root file system could not be built: {error}",
            "does `apt-get update` work on this machine? Is the disk full?",
        ) from error


def mmdebstrap_words(inputs: RootfsInputs, target: Path, more_hooks: Sequence[str] = ()) -> list[str]:
    """The command that builds the tree; the sources come on its stdin."""
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--include={','.join(inputs.packages)}",
        *[f"--dpkgopt={option}" for option in inputs.dpkg_options],
        *[f"--aptopt={option}" for option in inputs.apt_options],
        *hooks(),
        *more_hooks,
        inputs.release.codename,
        str(target),
        "-",
    ]


def hooks() -> list[str]:
    """What is done in the tree after the packages are in."""
    commands = [
        # Every node gets a key of its own.
        'rm -f "$1"/etc/ssh/ssh_host_*',
        # Ansible takes the age of this folder for the age of the package lists; there are none yet.
        'mkdir -p "$1"/var/lib/apt/lists && touch -d @1 "$1"/var/lib/apt/lists',
    ]
    if LOCAL_CERTIFICATES.is_dir():
        # A machine behind an inspecting proxy trusts its certificate; nodes are behind the same one.
        commands.insert(
            0,
            f'cp -r {LOCAL_CERTIFICATES}/. "$1"{LOCAL_CERTIFICATES}/ && chroot "$1" update-ca-certificates',
        )
    return [f"--customize-hook={command}" for command in commands]


def _hash_certificates(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.crt")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def remove_leftovers(cache_root: Path) -> None:
    """Clear builds whose command was killed, with the mmdebstrap that works on alone; to be called under the lock."""
    for partial in cache_root.glob("building-*"):
        processes.kill_groups_naming(str(partial))
        remove_tree(partial)


def remove_tree(tree: Path) -> None:
    """Remove the folder (or file), with what is mounted in it and while something may still write there."""
    if tree.is_file():
        tree.unlink()
        return
    mounts.unmount_below(tree)
    while tree.exists():
        try:
            shutil.rmtree(tree)
        except OSError as error:
            # A killed dpkg may finish its last write while we remove.
            if error.errno != errno.ENOTEMPTY:
                raise
