"""The host is given back as found. Runs in namespaces of its own, so that it decides what was found."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab

SCRIPT = """
import subprocess
from pathlib import Path
from kanctl.lab import host, mounts, network

def ip(*words):
    subprocess.run(["ip", *words], check=True)

def ip_forward():
    return host.IP_FORWARD.read_text().strip()

host.IP_FORWARD.write_text("{found}")
host.prepare()
assert ip_forward() == "1"
ip("link", "add", "kc-a", "type", "bridge")
host.prepare()                        # A second lab; the first one's note must stand.
ip("link", "add", "kc-b", "type", "bridge")
ip("netns", "add", "test")
ip("netns", "delete", "test")
assert mounts.is_mount_point(network.NETNS_DIR)
ip("link", "delete", "kc-a")
host.restore()
assert ip_forward() == "1", "another lab still needs it"
ip("link", "delete", "kc-b")
host.restore()
assert ip_forward() == "{found}", "not as found"
assert not host.FOUND.exists()
assert not mounts.is_mount_point(network.NETNS_DIR)
host.restore()
"""


@pytest.mark.parametrize("found", ["0", "1"])
def test_forwarding_is_given_back_as_found_by_the_last_lab(lab_host, found):
    # /run and /sys are the namespace's own; nothing of this reaches the machine.
    isolated = 'umount -l /run/netns 2>/dev/null; mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && exec "$@"'
    words = [
        "unshare",
        "--net",
        "--mount",
        "sh",
        "-c",
        isolated,
        "sh",
        sys.executable,
        "-c",
        SCRIPT.format(found=found),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
