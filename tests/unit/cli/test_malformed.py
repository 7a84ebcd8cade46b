"""Bad input costs one line: exit 2, or 4 for weights and records; nothing written, no socket opened."""

import re
import socket
import sys
from importlib import import_module
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support import malformed_files, malformed_options
from tests.support import malformed_settings as malformed_cases
from tests.support.malformed_input import MalformedInput

CASES = (*malformed_cases.CASES, *malformed_options.CASES, *malformed_files.CASES)


@pytest.fixture(scope="module")
def opened() -> list[str]:
    """Every socket and every file that is opened for writing, as the interpreter itself reports them."""
    import_module("urllib3.util.connection")  # binds a socket when it is imported, to look for IPv6
    seen: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith("socket."):
            seen.append(event)
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            # A number is a descriptor that is open already: pytest's workers write to theirs meanwhile.
            if not isinstance(arguments[0], int):
                seen.append(f"open {arguments[0]}")

    sys.addaudithook(watch)
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad_input_is_one_line(
    case: MalformedInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, opened: list[str]
) -> None:
    for name, content in case.files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "state"))
    opened.clear()
    code = run(case.arguments)
    touched = list(opened)
    captured = capsys.readouterr()
    assert (code, captured.out) == (case.code, "")
    line, _, more = captured.err.partition("\n")
    assert case.says in line
    assert len(line) <= 400
    assert line.isprintable()
    assert re.fullmatch(r"(  try: .*\n)?" if code != 2 else "", more), captured.err
    assert touched == []
    assert {path.name for path in tmp_path.iterdir()} == set(case.files)


def test_there_are_at_least_300_cases() -> None:
    assert len({(case.arguments, *case.files.items()) for case in CASES}) == len(CASES) >= 300


def test_audit_sees_file_and_socket(tmp_path: Path, opened: list[str]) -> None:
    opened.clear()
    (tmp_path / "x").write_text("x")
    socket.socket().close()
    assert any(name.startswith("open ") for name in opened)
    assert "socket.__new__" in opened
