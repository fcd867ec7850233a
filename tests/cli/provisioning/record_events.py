"""Records events/many.jsonl anew from playbooks/many.yml, keeping only the fields that ProvisionState may read.

Run it when ansible-core or ansible-runner is moved to another version: python tests/cli/provisioning/record_events.py
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from kanctl.cli.run_ansible import run_playbook

HERE = Path(__file__).parent
LOCAL = f"{{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}"
DATA = ("host", "role", "task", "duration", "ignore_errors", "ok", "changed", "failures", "dark", "skipped", "rescued")
RESULT = ("msg", "stderr", "stdout", "changed", "censored", "results", "item", "failed", "unreachable", "assertion")


def trim(event: dict[str, object]) -> dict[str, object]:
    """An event without what differs from machine to machine."""
    data = event.get("event_data", {})
    kept = {key: data[key] for key in DATA if key in data}
    if "res" in data:
        kept["res"] = _result(data["res"])
    stdout = "" if event["event"].startswith(("runner_", "playbook_")) else event.get("stdout", "")
    return {"event": event["event"], "stdout": stdout, "event_data": kept}


def _result(result: dict[str, object]) -> dict[str, object]:
    kept = {key: result[key] for key in RESULT if key in result}
    if "results" in kept:
        kept["results"] = [_result(item) for item in kept["results"]]
    return kept


def main() -> None:
    """Play and write."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KANCTL_HOME"] = folder
        inventory = Path(folder, "hosts.yml")
        hosts = "".join(f"    {name}: {LOCAL}\n" for name in ("alpha", "beta", "delta"))
        hosts += "    gamma: {ansible_host: 127.0.0.1, ansible_port: 1}\n"
        inventory.write_text(f"all:\n  vars: {{greet_folder: {folder}}}\n  hosts:\n{hosts}")
        events: list[dict[str, object]] = []
        run_playbook(HERE / "playbooks" / "many.yml", inventory, on_event=events.append)
    lines = [json.dumps(trim(event)) for event in events]
    Path(HERE, "events", "many.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
