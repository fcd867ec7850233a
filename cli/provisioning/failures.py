"""A failed task in its owner's words: what an unreachable node means, and what to do."""

import re

from .state import TaskResult

# What ssh says of an unreachable node, what that means to its owner, and the next step. The first that fits is taken.
UNREACHABLE = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED",
     "shows another host key than the known one",
     "compare the key on the machine; if it was reinstalled: ssh-keygen -R its address, then ssh to it once"),
    (r"Host key verification failed",
     "has a host key that is not known",
     "ssh to it once and compare the key with the one on the machine"),
    (r"Permission denied|Too many authentication failures",
     "refused the login", "check ansible_user and the private key in the inventory"),
    (r"No route to host|Network is unreachable", "has no route to it", "is it up, and is its address right?"),
    (r"Connection refused", "refuses connections", "is sshd running, and is the port right?"),
    (r"timed out|Timeout", "did not answer in time", "is it up, and is its address right?"),
    (r"Could not resolve", "has a name that does not resolve", "set ansible_host to an address"),
    (r"Connection (closed|reset)|Connection to .* closed|Broken pipe",
     "closed the connection", "it may be booting: wait until ssh answers"),
)  # fmt: skip
# What else stops a node before its first step, and the next step.
FAILED = (
    (r"Missing sudo password|password is required|Incorrect sudo password|not in the sudoers",
     "the login may not become root", "let ansible_user use sudo without a password, or log in as root"),
    (r"interpreter '?[^']*'? was not found",
     "has no such Python", "apt-get install python3 there, or name another in ansible_python_interpreter"),
)  # fmt: skip
# ssh names the very file and address, for instance: ssh-keygen -f "/root/.ssh/known_hosts" -R "10.0.0.7"
_FORGET_KEY = re.compile(r"ssh-keygen -f \S+ -R \S+")
# A failed task's message is cut to this many characters; the journal has all of it.
MESSAGE_LENGTH = 2000


def describe_failure(failure: TaskResult) -> str:
    """One failed task in words; for an unreachable node the reason and what to do, not Ansible's wall of text."""
    text = " ".join(failure.message.split())
    if failure.outcome != "unreachable":
        for pattern, meaning, step in FAILED:
            if re.search(pattern, text):
                return f"{failure.node}: {meaning}: {step} ({failure.message.splitlines()[0]})"
        return f"{failure.node}: {failure.step}: '{failure.task}': {failure.message[:MESSAGE_LENGTH]}"
    for pattern, meaning, step in UNREACHABLE:
        if re.search(pattern, text, re.IGNORECASE):
            forget = _FORGET_KEY.search(text)
            advice = step.replace("ssh-keygen -R its address", forget[0]) if forget else step
            return f"{failure.node} {meaning}: {advice}"
    return f"{failure.node} cannot be reached: {text[:300]}"
