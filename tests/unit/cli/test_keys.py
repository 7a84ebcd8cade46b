"""`keys`: a new key on stdout, and what is said about it on stderr."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.json_output import checked


def test_only_the_key_is_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ("--state-dir", str(tmp_path))
    assert run(["keys", "add", "alice", *state]) == 0
    said = capsys.readouterr()
    (key,) = said.out.split()
    assert key.startswith("dk-alice-")
    assert said.err.splitlines()[-1] == "from now on every client of a gateway of this host needs a key"
    assert run(["keys", "list", "--json", *state]) == 0
    assert [row["name"] for row in checked("keys list", capsys.readouterr().out)] == ["alice"]
    assert run(["keys", "access", *state]) == 0
    assert key not in capsys.readouterr().out


def test_last_revoked_key_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ("--state-dir", str(tmp_path))
    assert run(["keys", "add", "alice", *state]) == 0
    capsys.readouterr()
    assert run(["keys", "revoke", "alice", *state]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "alice is revoked"
    assert said[1].startswith("no key is left")
