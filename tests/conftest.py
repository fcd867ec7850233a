"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

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
