"""A failed task in its owner's words."""

from kanctl.cli.provisioning.failures import MESSAGE_LENGTH, describe_failure
from kanctl.cli.provisioning.state import TaskResult

PREFIX = "Failed to connect to the host via ssh: "
CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Add correct host key in /srv/known_hosts to get rid of this message.
Offending ED25519 key in /srv/known_hosts:2
  remove with:
  ssh-keygen -f "/srv/known_hosts" -R "10.0.0.7"
Host key for 10.0.0.7 has changed and you have requested strict checking.
Host key verification failed."""


def failed(message: str, outcome: str = "unreachable") -> TaskResult:
    return TaskResult(
        node="node1", step="facts", task="Gathering Facts", outcome=outcome, changed=False, seconds=0, message=message
    )


def test_a_changed_host_key_is_one_line_with_the_very_command():
    text = describe_failure(failed(PREFIX + CHANGED))

    assert "\n" not in text
    assert "node1 shows another host key than the known one" in text
    assert 'ssh-keygen -f "/srv/known_hosts" -R "10.0.0.7"' in text


def test_each_way_to_be_unreachable_has_its_own_words():
    known = {
        "Host key verification failed.": "not known",
        "root@10.0.0.7: Permission denied (publickey).": "refused the login",
        "ssh: connect to host 10.0.0.7 port 22: No route to host": "no route",
        "ssh: connect to host 10.0.0.7 port 22: Connection refused": "refuses connections",
        "ssh: connect to host 10.0.0.7 port 22: Connection timed out": "did not answer in time",
        "ssh: Could not resolve hostname nosuch: Name or service not known": "does not resolve",
        "kex_exchange_identification: Connection closed by remote host": "closed the connection",
    }
    for message, words in known.items():
        assert words in describe_failure(failed(PREFIX + message)), message


def test_an_unknown_reason_is_passed_on_short():
    text = describe_failure(failed("something\nelse " + "x" * 1000))

    assert text.startswith("node1 cannot be reached: something else xxx")
    assert len(text) < 400


def test_what_stops_a_node_before_its_first_step_has_its_next_step():
    sudo = describe_failure(failed("Missing sudo password", outcome="failed"))
    python = describe_failure(failed("The module interpreter '/opt/python' was not found.", outcome="failed"))

    assert sudo.startswith("node1: the login may not become root: let ansible_user use sudo without a password")
    assert sudo.endswith("(Missing sudo password)")
    assert "or name another in ansible_python_interpreter" in python


def test_a_check_that_failed_speaks_for_itself():
    text = describe_failure(failed("Wanted: 40 GiB. Found: 3. Next: free space.", outcome="failed"))

    assert text == "node1: facts: 'Gathering Facts': Wanted: 40 GiB. Found: 3. Next: free space."
    assert len(describe_failure(failed("x" * 10_000, outcome="failed"))) < MESSAGE_LENGTH + 100
