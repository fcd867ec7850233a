"""Gives sys.intern back, which Ansible's module code replaces when imported: torch's compiler refuses the replacement.

Ansible's patch serves its own tagged strings, which no test here makes.
"""

import sys

_intern = sys.intern

import ansible.module_utils.basic  # noqa: E402, F401

sys.intern = _intern
