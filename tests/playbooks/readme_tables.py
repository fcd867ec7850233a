"""The variable tables of the roles' READMEs, made from their argument specs.

Run it after a change of specs: python tests/playbooks/readme_tables.py --write
"""

import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).parents[2] / "playbooks/roles"
HEAD = "| variable | type | default | meaning |\n|---|---|---|---|\n"


def options_of(role: str) -> dict[str, Any]:
    """A role's options, name -> spec."""
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())
    return specs["argument_specs"]["main"]["options"]


def table_of(role: str) -> str:
    """The table as it stands in the role's README; a role without variables has none."""
    rows = [
        f"| `{name}` | {_type(spec)} | {_default(spec)} | {' '.join(spec['description'].split())} |\n"
        for name, spec in options_of(role).items()
    ]
    return HEAD + "".join(rows)


def with_table(readme: str, table: str) -> str:
    """The README with its table of variables replaced. Raises ValueError for one without a table."""
    before, found, rest = readme.partition(HEAD)
    if not found:
        raise ValueError(f"wanted the line {HEAD.splitlines()[0]}, found none")
    lines = rest.splitlines(keepends=True)
    while lines and lines[0].startswith("|"):
        lines.pop(0)
    return before + table + "".join(lines)


def _type(spec: dict[str, Any]) -> str:
    choices = ", ".join(f"`{_word(choice)}`" for choice in spec.get("choices", []))
    return f"{spec['type']}: {choices}" if choices else str(spec["type"])


def _default(spec: dict[str, Any]) -> str:
    if "default" not in spec:
        return "required" if spec.get("required") else "see defaults/main.yml"
    return f"`{_word(spec['default'])}`"


def _word(value: object) -> str:
    """A value as YAML writes it on one line; what is a string stays as it reads in an inventory."""
    if isinstance(value, str) and value and "{{" in value:
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    return text.replace("'", '"') if value == "" else text


def main() -> int:
    """Name the READMEs whose table differs; with --write, write them."""
    differ = []
    for role in sorted(path.name for path in ROLES.iterdir() if path.is_dir()):
        path = ROLES / role / "README.md"
        text = path.read_text()
        if (new := with_table(text, table_of(role))) != text:
            differ.append(role)
            if "--write" in sys.argv:
                path.write_text(new)
    sys.stdout.write("\n".join(differ) + "\n" if differ else "")
    return 1 if differ and "--write" not in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
