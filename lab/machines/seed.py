"""The identity of one machine as a tar file; the machine unpacks it over its root at its first boot.

A tar on a bare disk needs no file system driver, so any kernel can read it.
"""

import io
import tarfile

HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


def seed_tar(*, node_name: str, guest: str, host_key: str, host_key_public: str, login_key_public: str) -> bytes:
    """The archive: name, SSH host key, and the public key that opens root's account."""
    files = {
        "etc/hostname": (f"{node_name}\n", 0o644),
        "etc/hosts": (f"127.0.0.1 localhost\n127.0.1.1 {node_name}\n", 0o644),
        HOST_KEY: (host_key, 0o600),
        f"{HOST_KEY}.pub": (host_key_public, 0o644),
        "root/.ssh/authorized_keys": (login_key_public, 0o600),
        # Last: a machine that has it unpacks nothing again.
        "etc/kanctl-lab": (f"{guest}\n", 0o644),
    }
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as archive:
        folder = tarfile.TarInfo("root/.ssh")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content.encode()), mode
            archive.addfile(entry, io.BytesIO(content.encode()))
    return text.getvalue()
