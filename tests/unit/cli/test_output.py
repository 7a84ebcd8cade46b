"""Tables, messages and files."""

from pathlib import Path

import pytest

from deckard_deploy.cli.output import say, table, write_text
from deckard_deploy.errors import BadInputError


def test_table_aligns_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table([("a", "bbb", ""), ("aaa", "b", "c")])
    table([])
    assert capsys.readouterr().out == "a    bbb\naaa  b    c\n"


def test_message_goes_to_stderr_without_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_TOKEN", "canary-1234")
    say("it is canary-1234")
    assert capsys.readouterr() == ("", "it is [secret]\n")


def test_unwritable_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text("text\n", None)
    assert capsys.readouterr().out == "text\n"
    write_text("text\n", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "text\n"
    with pytest.raises(BadInputError, match="Is a directory"):
        write_text("text\n", tmp_path)
