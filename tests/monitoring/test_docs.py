"""The tables of docs/health.md and docs/telemetry.md are those of the code."""

from kanctl.monitoring.fields import FIELDS
from kanctl.monitoring.health.catalog import CHECKS


def test_every_check_is_documented_as_it_is(project_root):
    text = (project_root / "docs" / "health.md").read_text()
    for check in CHECKS:
        command = check.command.replace("|", "&#124;")
        row = [
            f"`{check.id}`",
            check.health_id,
            check.what,
            check.severity,
            check.threshold,
            f"`{command}`",
            check.source,
        ]
        assert f"| {' | '.join(row)} |" in text
    assert text.count("\n| `") - 5 == len(CHECKS)


def test_every_value_is_documented_as_it_is(project_root):
    text = (project_root / "docs" / "telemetry.md").read_text()
    for field in FIELDS:
        row = [field.scope, f"`{field.name}`", field.unit, field.what, f"`{field.command}`", f"`{field.prometheus}`"]
        assert f"| {' | '.join(row)} |" in text
