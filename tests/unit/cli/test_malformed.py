"""Bad input costs one line: exit 2, nothing written, no socket opened."""

import socket
import sys
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.unit.cli.malformed_cases import CASES, Case


@pytest.fixture(scope="module")
def opened() -> list[str]:
    """Every socket and every file that is opened for writing, as the interpreter itself reports them."""
    seen: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith("socket."):
            seen.append(event)
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            seen.append(f"open {arguments[0]}")

    sys.addaudithook(watch)
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad_input_is_one_line(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, opened: list[str]
) -> None:
    for name, content in case.files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    opened.clear()
    code = run(case.arguments)
    touched = list(opened)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.count("\n") == 1, captured.err
    assert case.says in captured.err
    assert touched == []
    assert {path.name for path in tmp_path.iterdir()} == set(case.files)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


def test_the_watch_sees_a_file_and_a_socket(tmp_path: Path, opened: list[str]) -> None:
    opened.clear()
    (tmp_path / "x").write_text("x")
    socket.socket().close()
    assert any(name.startswith("open ") for name in opened)
    assert "socket.__new__" in opened
