"""Fixtures that every test may use."""

import os
import signal
import sys
from pathlib import Path

import pytest

# Ansible's module code replaces sys.intern when it is imported, and torch's compiler refuses the replacement. Imported
# here, first of all, and given back; the patch serves tagged strings, which no test makes.
_intern = sys.intern
import ansible.module_utils.basic  # noqa: E402, F401

sys.intern = _intern

# Without a GPU Triton's kernels run in its interpreter; that must be said before anything imports Triton.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell's background job ignores Ctrl-C, and so would every command that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real text for tests: $KANCTL_TEST_DATA, else shared/data beside the checkout; skips without it."""
    folder = Path(os.environ.get("KANCTL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data: neither $KANCTL_TEST_DATA nor {folder} is a folder")
    return folder
