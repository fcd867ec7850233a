"""What makes a build repeatable: fixed names, times and versions for everything that a kernel writes into itself. Pure.

Source: Documentation/kbuild/reproducible-builds.rst
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ..fragment import Request

# Relative to the build folder, so that the folder's own path does not get into the configuration.
MODULE_KEY = "kanctl-module-key.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """One build's identity."""

    version: str
    local_version: str
    revision: int
    epoch_s: int

    @property
    def release(self) -> str:
        """What `uname -r` will say."""
        return f"{self.version}{self.local_version}"

    @property
    def package_version(self) -> str:
        """The Debian version of the packages."""
        return f"{self.version}-{self.revision}"

    def environment(self) -> dict[str, str]:
        """Variables for make and the packaging tools."""
        return {
            "KBUILD_BUILD_TIMESTAMP": f"@{self.epoch_s}",
            "KBUILD_BUILD_USER": "kanctl",
            "KBUILD_BUILD_HOST": "kanctl",
            "KBUILD_BUILD_VERSION": str(self.revision),
            "SOURCE_DATE_EPOCH": str(self.epoch_s),
            "KDEB_PKGVERSION": self.package_version,
            "KDEB_CHANGELOG_DIST": "stable",
            "DEBFULLNAME": "kanctl",
            "DEBEMAIL": "kanctl@localhost",
            "LC_ALL": "C",
            "TZ": "UTC",
        }

    def fixed_config(self, *, signed: bool) -> dict[str, str]:
        """Lines of the configuration that belong to the build, not to a fragment."""
        lines = {"CONFIG_LOCALVERSION": f'"{self.local_version}"', "CONFIG_LOCALVERSION_AUTO": "n"}
        return lines | ({"CONFIG_MODULE_SIG_KEY": f'"{MODULE_KEY}"'} if signed else {})

    def changelog_date(self) -> str:
        """The source's date in the form of a Debian changelog."""
        return datetime.fromtimestamp(self.epoch_s, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")


def inputs_digest(requests: Mapping[str, Request], facts: Mapping[str, str]) -> str:
    """SHA-256 over everything that decides a kernel: requested lines, source, patches, compiler.

    Its first digits stand in the kernel's name, so two different kernels never overwrite each other's modules.
    """
    digest = hashlib.sha256()
    for symbol, request in sorted(requests.items()):
        digest.update(f"{symbol}={request.value}\n".encode())
    for name, value in sorted(facts.items()):
        digest.update(f"{name}: {value}\n".encode())
    return digest.hexdigest()


def local_version(profile: str, digest: str) -> str:
    """`-kanctl-lab-1a2b3c`: what is added to the version. uname holds 64 characters in all."""
    return f"-kanctl-{profile}-{digest[:6]}"
