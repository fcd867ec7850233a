"""Python files of the playbooks, loaded by their path: Ansible's folders are no packages."""

import importlib.util
from types import ModuleType

from .context import playbooks_dir


def load_playbook_code(name: str) -> ModuleType:
    """A file below playbooks/, such as library/kanctl_hardware.py, as a module of its own."""
    path = playbooks_dir() / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
