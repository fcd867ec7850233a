"""What `kanctl provision nodes` does, with another playbook. Words: PLAYBOOK INVENTORY NODE..."""

import json
import sys
from pathlib import Path

from kanctl.cli import exits
from kanctl.cli.provisioning.run import ProvisionOptions, provision, raise_for_failures
from kanctl.errors import KanctlError


def main() -> int:
    """The report on stdout, everything else on stderr; gives the exit code."""
    playbook, inventory, *nodes = sys.argv[1:]
    try:
        report = provision(Path(playbook), Path(inventory), nodes, ProvisionOptions())
        json.dump(report.to_json(), sys.stdout)
        sys.stdout.flush()
        raise_for_failures(report)
    except KanctlError as error:
        sys.stderr.write(f"{error}\n  next: {error.next_step}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return exits.DONE


if __name__ == "__main__":
    sys.exit(main())
