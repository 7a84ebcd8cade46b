"""Command lines of ssh, and the cause of a failed connection."""

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.system import ssh


def test_command_keeps_host_key_checks_and_ends_options_before_node():
    argv = ssh.command("alice@spark", "true")
    assert argv[-4:] == ("-T", "--", "alice@spark", "true")
    assert "StrictHostKeyChecking" not in " ".join(argv)
    assert "-t" in ssh.command("spark", "true", terminal=True)


@pytest.mark.parametrize("node", ["", "-oProxyCommand=x", "a b"])
def test_what_is_no_node_is_refused(node: str):
    with pytest.raises(BadInputError, match="is no node"):
        ssh.command(node, "true")


# Texts of OpenSSH 9.2 (Debian 12).
@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "has changed",
        ),
        ("Host key verification failed.", "is not known here"),
        ("root@spark: Permission denied (publickey).", "none of your keys"),
        ("ssh: Could not resolve hostname spark: Name or service not known", "name is not known"),
        ("ssh: connect to host spark port 22: Connection refused", "no ssh server answers"),
        ("ssh: connect to host spark port 22: Connection timed out", "does not answer"),
        ("ssh: connect to host spark port 22: No route to host", "no route"),
        ("Connection to spark closed by remote host.", "connection was cut"),
        ("kex_exchange: a new reason\n", "kex_exchange: a new reason"),
        ("", "ssh gave no reason"),
    ],
)
def test_failure_names_node_and_cause(stderr: str, cause: str):
    error = ssh.failure("root@spark", stderr)
    assert error.exit_code == 5
    assert error.message.startswith("node root@spark: ")
    assert cause in error.message
    assert "{" not in error.hint
