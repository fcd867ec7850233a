"""The disk image that all machines share: Debian with its own kernel and GRUB, built once, kept by content hash.

No loop mount and no chroot of ours: mke2fs fills the file system from a folder, and the new disk's own first boot
installs GRUB with Debian's tools.
"""

import hashlib
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from .. import tools
from ..errors import LabError
from ..rootfs import PACKAGES as NODE_PACKAGES
from ..rootfs import RootfsInputs, build_tree, read_inputs, remove_leftovers, remove_tree, require_space
from . import qemu

NODE_FILES = Path(__file__).parent / "node_files"
PACKAGES = (
    *NODE_PACKAGES,
    # The usual kernel, as on a real node. The cloud kernel would be a quarter of it, but has no driver for a watchdog
    # card and no InfiniBand; the initrd is small either way, and so is the difference when booting.
    "linux-image-amd64",
    "initramfs-tools",
    # Debian's default for an initrd; without it every one would be packed with gzip, which is slower both ways.
    "zstd",
    "grub-pc",
)
DISK_MIB = 8192
# The tree with its packages while mmdebstrap works, the image's used blocks, and room to spare.
BUILD_SPACE_MIB = 4000
SECTOR_BYTES = 512
FIRST_SECTOR = 2048
# What both this e2fsprogs and GRUB 2.06 read; newer defaults (orphan_file, metadata_csum_seed) GRUB refuses.
EXT4_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)
# 25 s on an idle two-core machine without KVM.
FINISH_TIMEOUT_S = 600
# Raise when what this file does to the disk changes; the packages and node_files are in the hash by themselves.
RECIPE_VERSION = 1
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service",
)


def content_hash(inputs: RootfsInputs, node_files: Path = NODE_FILES) -> str:
    """Twelve hex digits that change with the packages, our files, or the recipe."""
    digest = hashlib.sha256(f"{inputs.content_hash()} {RECIPE_VERSION} {DISK_MIB} {MASKED_UNITS}".encode())
    for path in sorted(node_files.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(node_files)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def ensure_image(cache_root: Path, progress: Callable[[str], None]) -> Path:
    """The raw disk image for this machine's inputs, built when it is not in the cache yet. Raises LabError."""
    inputs = read_inputs(PACKAGES)
    image = cache_root / f"machine-{content_hash(inputs)}.raw"
    remove_leftovers(cache_root)
    if image.is_file():
        return image
    cache_root.mkdir(parents=True, exist_ok=True)
    require_space(cache_root, BUILD_SPACE_MIB, "to build the machines' disk image")
    progress(f"building the machines' disk image ({inputs.release.codename}, three to eight minutes, once)")
    partial = cache_root / f"building-{os.getpid()}"
    # Beside the tree: mke2fs copies the whole folder.
    disk = cache_root / f"building-{os.getpid()}.raw"
    try:
        build_tree(inputs, partial, progress, hooks())
        progress("  filling the disk")
        _make_disk(partial, disk)
        progress("  first boot of the disk: GRUB is installed from inside")
        _finish(partial, disk)
        disk.rename(image)
    finally:
        remove_tree(partial)
        disk.unlink(missing_ok=True)
    progress(f"disk image kept in {image}")
    return image


def hooks() -> list[str]:
    """What mmdebstrap does before the packages are installed (essential) and after (customize)."""
    essential = [
        # GRUB goes onto the disk at the image's first boot; nothing may be written to a disk of this machine.
        'echo "grub-pc grub-pc/install_devices_empty boolean true" | chroot "$1" debconf-set-selections',
        # Before the kernel, because its installation makes the initrd.
        f'cp -r "{NODE_FILES}/." "$1"/ && chmod 755 "$1"/etc/initramfs-tools/hooks/* "$1"/usr/lib/kanctl-lab/finish',
    ]
    customize = [
        f'systemctl --quiet --root="$1" mask {" ".join(MASKED_UNITS)}',
        'systemctl --quiet --root="$1" enable systemd-networkd.service kanctl-lab-seed.service',
        'echo "nameserver 10.0.2.3" > "$1"/etc/resolv.conf',
        # The root file system comes from GRUB's root=; an empty machine-id is filled at each node's first boot.
        'echo "/dev/vda1 / ext4 errors=remount-ro 0 1" > "$1"/etc/fstab && : > "$1"/etc/machine-id',
        'rm -rf "$1"/var/cache/apt/archives/*.deb && passwd --quiet --root "$1" --lock root',
    ]
    return [f"--essential-hook={line}" for line in essential] + [f"--customize-hook={line}" for line in customize]


def partition_table(disk_mib: int) -> bytes:
    """Sector 0 of a disk with one bootable Linux partition from FIRST_SECTOR to the end.

    Source: the classic master boot record; entries at byte 446, signature at 510. Shown by `fdisk -l`.
    """
    sectors = disk_mib * 2**20 // SECTOR_BYTES - FIRST_SECTOR
    # Addresses as cylinder, head and sector are out of range, as every system writes them for large disks.
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", FIRST_SECTOR, sectors)
    return bytes(446) + entry + bytes(3 * 16) + b"\x55\xaa"


def _make_disk(tree: Path, disk: Path) -> None:
    """A raw disk whose one partition holds the tree."""
    offset = FIRST_SECTOR * SECTOR_BYTES
    with disk.open("wb") as file:
        file.truncate(DISK_MIB * 2**20)
    words = ["mke2fs", "-q", "-t", "ext4", "-O", EXT4_FEATURES, "-m", "1", "-i", "32768", "-L", "kanctl-lab"]
    words += ["-E", f"offset={offset},lazy_itable_init=0,lazy_journal_init=1", "-d", str(tree), str(disk)]
    tools.run([*words, f"{(DISK_MIB * 2**20 - offset) // 1024}k"])
    with disk.open("r+b") as file:
        file.write(partition_table(DISK_MIB))


def _finish(tree: Path, disk: Path) -> None:
    """Boot the disk once with `finish` as its first process. Raises LabError with the end of what it said."""
    words = qemu.finish_words(
        name=str(tree), disk=disk, kernel=(tree / "vmlinuz").resolve(), initrd=(tree / "initrd.img").resolve()
    )
    try:
        done = subprocess.run(
            [tools.find(words[0]), *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=FINISH_TIMEOUT_S,
            check=False,
        )
        said, ended = done.stdout + done.stderr, True
    except subprocess.TimeoutExpired as error:
        said, ended = (error.stdout or b"").decode(errors="replace"), False
    if not ended or "kanctl-lab: finished" not in said:
        tail = "\n".join(f"  {line}" for line in said.splitlines()[-12:])
        raise LabError(
            f"the new disk image did not finish its first boot within {FINISH_TIMEOUT_S} s; it said:\n{tail}",
            "run the same command again when this machine has less to do",
        )
