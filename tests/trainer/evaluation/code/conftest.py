"""A sandbox with short limits, and three problems of our own."""

from pathlib import Path

import pytest

from kanctl.errors import MissingToolError
from kanctl.trainer.evaluation.code.sandbox import Sandbox, SandboxLimits


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """One second of the processor, hardly more of the clock. Skips where bubblewrap can make none."""
    try:
        made = Sandbox(SandboxLimits(cpu_s=1, wall_s=1.3))
        made.run(b"")
    except MissingToolError as error:
        pytest.skip(str(error))
    return made


@pytest.fixture(scope="session")
def three_problems() -> Path:
    return Path(__file__).with_name("three.jsonl")
