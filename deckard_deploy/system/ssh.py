"""OpenSSH, as the user has configured it: command lines, and the cause of a failed connection in a few words."""

import re

from deckard_deploy.errors import BadInputError, NetworkError

FAILED = 255  # ssh(1), EXIT STATUS: 255 if an error occurred, else the exit status of the remote command
# Nothing can answer a question about a password or a host key between two captured streams. A network that is
# gone without a word ends the connection after three unanswered messages (ssh_config(5), ServerAliveCountMax).
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ConnectTimeout=20")
_CAUSES = (
    (
        r"IDENTIFICATION HAS CHANGED",
        "its host key has changed",
        "ask who changed it, then: ssh-keygen -R {host}",
    ),
    (
        r"Host key verification failed",
        "its host key is not known here",
        "ssh {node} true, and compare the key",
    ),
    (r"Permission denied|Too many authentication", "it accepts none of your keys", "ssh-copy-id {node}"),
    (
        r"Could not resolve hostname",
        "its name is not known",
        "correct the name, or its Host in ~/.ssh/config",
    ),
    (r"Connection refused", "no ssh server answers on its port", "start sshd there, or correct the port"),
    (r"timed out|Timeout, server", "it does not answer", "ssh -v {node} true"),
    (r"No route to host|Network is unreachable", "no route leads to it", "ssh -v {node} true"),
    (r"closed by|Connection reset|Broken pipe", "the connection was cut", "the same command again"),
)


def command(node: str, remote: str, *, terminal: bool = False) -> tuple[str, ...]:
    """Return the command line that runs `remote` in the node's login shell. Raises BadInputError for an option."""
    if not node or node.startswith("-") or any(character.isspace() for character in node):
        raise BadInputError(f"{node!r} is no node", hint="--node USER@HOST, or a Host of ~/.ssh/config")
    return ("ssh", *_OPTIONS, "-t" if terminal else "-T", "--", node, remote)


def failure(node: str, stderr: str) -> NetworkError:
    """Return the error of an ssh that ended with FAILED."""
    host = node.rpartition("@")[2]
    for pattern, cause, hint in _CAUSES:
        if re.search(pattern, stderr):
            return NetworkError(f"node {node}: {cause}", hint=hint.format(node=node, host=host))
    lines = stderr.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "ssh gave no reason")
    return NetworkError(f"node {node}: {last}", hint=f"ssh -v {node} true")
