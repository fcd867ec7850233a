"""Names and paths of runs and corpora: one rule for what they may hold, one place for where they lie."""

import re
import time

from kanctl.errors import BadInputError

# What may stand in a systemd unit name and a path without quoting.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def check_name(what: str, name: str) -> str:
    """The name itself. Raises BadInputError unless it is lower-case letters, digits and hyphens, at most 63."""
    if not _NAME.fullmatch(name):
        raise BadInputError(f"{what} {name!r}: wanted 1 to 63 lower-case letters, digits and hyphens")
    return name


def new_run_name(recipe_name: str) -> str:
    """The recipe's name and the time: unique for launches a second apart, sorted by age within a recipe."""
    return f"{recipe_name}-{time.strftime('%Y%m%d-%H%M%S')}"


def runs_dir(data_dir: str) -> str:
    """The folder of all runs."""
    return f"{data_dir}/runs"


def run_dir(data_dir: str, run: str) -> str:
    """The folder of one run."""
    return f"{runs_dir(data_dir)}/{check_name('run', run)}"


def corpus_dir(data_dir: str, corpus: str) -> str:
    """The folder of one prepared corpus."""
    return f"{data_dir}/corpora/{check_name('corpus', corpus)}"


def unit_name(run: str) -> str:
    """The systemd unit of a run, the same on every node. Shown by `systemctl status kanctl-train-<run>`."""
    return f"kanctl-train-{check_name('run', run)}.service"
