"""Whatever a command's standard streams are: no traceback, no terminal sequence in a pipe, and our exit codes."""

import itertools
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

PLAN = ["plan", "--profile", "spark"]
REFUSED = ["logs", "--name", "nobody"]
ENVIRONMENTS = {
    "plain": {"TERM": "xterm-256color"},
    "dumb": {"TERM": "dumb"},
    "no-colour": {"TERM": "xterm-256color", "NO_COLOR": "1"},
    "narrow-c": {"TERM": "xterm", "COLUMNS": "20", "LANG": "C", "LC_ALL": "C"},
    "no-term": {},
}


def closing(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def run(
    folder: Path, environment: dict[str, str], words: list[str], **streams: object
) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr; on a pipe unless `streams` says otherwise."""
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), "DECKARD_HOME": str(folder / "state")}
    with subprocess.Popen(
        [sys.executable, "-m", "deckard_deploy", *words],
        env=own | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")} | environment,
        cwd=Path(__file__).parents[3],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},  # type: ignore[call-overload]
    ) as done:
        out, err = done.communicate(timeout=60)
        return done.returncode, out or b"", err or b""


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("words", [PLAN, REFUSED], ids=["well", "refused"])
def test_a_pipe_gets_no_terminal_sequence(tmp_path: Path, environment: str, words: list[str]) -> None:
    code, out, err = run(tmp_path, ENVIRONMENTS[environment], words)
    assert code == (0 if words is PLAN else 2), err
    assert b"\x1b" not in out + err
    assert b"Traceback" not in err
    assert bool(out) is (words is PLAN)
    if words is REFUSED:
        assert err.count(b"\n") == 1


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_terminal_gets_text(tmp_path: Path, environment: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 20))
    code, _, _ = run(tmp_path, ENVIRONMENTS[environment], PLAN, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    os.close(ours)
    assert code == 0
    assert b"spark" in shown
    assert b"Traceback" not in shown
    if environment in ("dumb", "no-colour"):
        assert b"\x1b[3" not in shown


def test_a_line_that_is_rewritten_does_not_wrap() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 20))
    code = """
import time
from deckard_deploy.cli.screens.transfer import Display
display = Display("deckard-31b-svdquant")
for done in range(3):
    time.sleep(0.25)
    display.show(done, 10)
"""
    subprocess.run([sys.executable, "-c", code], stderr=theirs, cwd=Path(__file__).parents[3], check=True)
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    os.close(ours)
    lines = shown.decode().split("\r\x1b[2K")
    assert len(lines) == 4
    assert max(map(len, lines)) < 20


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # EIO: nobody is on the other side any more
        return b""


@pytest.mark.parametrize(
    ("closed", "words"),
    list(itertools.product([(0,), (1,), (2,), (0, 1, 2)], [PLAN, REFUSED])),
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else value[0],
)
def test_a_stream_that_is_closed_is_no_bug_of_ours(
    tmp_path: Path, closed: tuple[int, ...], words: list[str]
) -> None:
    code, _, err = run(tmp_path, {}, words, preexec_fn=closing(*closed))
    assert b"Traceback" not in err
    assert code == (0 if words is PLAN else 2)
