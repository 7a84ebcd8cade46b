"""Whatever a command's standard streams are: no traceback, no terminal sequence in a pipe, and our exit codes."""

import itertools
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest

from tests.support.fake_deployment import FakeDeployment

pytestmark = pytest.mark.slow  # real processes or servers, and their waits

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
def test_pipe_gets_no_terminal_sequence(tmp_path: Path, environment: str, words: list[str]) -> None:
    code, out, err = run(tmp_path, ENVIRONMENTS[environment], words)
    assert code == (0 if words is PLAN else 2), err
    assert b"\x1b" not in out + err
    assert b"Traceback" not in err
    assert bool(out) is (words is PLAN)
    if words is REFUSED:
        assert err.count(b"\n") == 1


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_terminal_gets_text(tmp_path: Path, environment: str) -> None:
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


def on_terminal(folder: Path, environment: dict[str, str], words: list[str]) -> str:
    """Return what a terminal of 80 columns is sent."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    run(folder, environment, words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    os.close(ours)
    return shown.decode()


def test_long_message_cuts_no_word(tmp_path: Path) -> None:
    words = ["render", "command", "-p", "spark", "--set", "max-model-len=32k"]
    shown = on_terminal(tmp_path, {"TERM": "xterm"}, words).splitlines()
    assert len(shown) > 1
    assert max(map(len, shown)) <= 80
    assert "a whole number was expected, written out: 32768" in " ".join(" ".join(shown).split())
    assert shown[1].startswith(" " * 9)


FACTS = str(Path(__file__).parents[1] / "doctor/facts/spark-healthy.json")


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_doctor_respects_no_color(tmp_path: Path, environment: dict[str, str], *, coloured: bool) -> None:
    assert ("\x1b[" in on_terminal(tmp_path, environment, ["doctor", "--facts", FACTS])) is coloured


def test_table_of_deployments_fits_80_columns(tmp_path: Path) -> None:
    fake = FakeDeployment(tmp_path)
    fake.stored(fake.plan())
    (fake.state.create("a" * 55).releases / "000000000000").mkdir()
    words = ["status", "--state-dir", str(fake.state.root)]
    lines = on_terminal(tmp_path, {"TERM": "xterm"}, words).splitlines()
    assert lines[0].split() == ["deployment", "condition", "base", "url"]
    assert [line.split()[0] for line in lines[1:3]] == ["a" * 55, "box"]
    assert lines[3].startswith("not on this screen: since, model, watch, profile, engine; see:")
    # A path is one word, which is not broken.
    assert max(len(line) for line in lines if " " in line.strip()) <= 80


@pytest.mark.parametrize("words", [["models"], ["engines"], ["profiles", "list"]], ids=" ".join)
def test_lists_cut_no_word(tmp_path: Path, words: list[str]) -> None:
    """A terminal cut the words of `models` and `engines` at its edge."""
    shown = on_terminal(tmp_path, {"TERM": "xterm"}, words)
    _, piped, _ = run(tmp_path, {}, words)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == piped.decode().split()


TRANSFER = """
import sys, time
from deckard_deploy.cli.reporter import TERMINAL
with TERMINAL.transfer("deckard-31b-svdquant") as display:
    for done in range(1, 4):
        display.show(done * 10**9, 4 * 10**9)
        time.sleep(0.25)
    TERMINAL.say("retry")
print("rich" in sys.modules)
"""


def transfer_on_terminal(columns: int, environment: dict[str, str]) -> tuple[bytes, list[str]]:
    """Return the bytes that a transfer writes to a terminal on stderr, and the lines that are left there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, "-c", TRANSFER]
    done = subprocess.run(
        command,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=Path(__file__).parents[3],
        check=True,
    )
    assert done.stdout in (b"True\n", b"False\n")
    os.close(theirs)
    written = b""
    while piece := _read(ours):
        written += piece
    os.close(ours)
    terminal = pyte.Screen(columns, 24)
    pyte.ByteStream(terminal).feed(written)
    return written, [line.rstrip() for line in terminal.display if line.strip()]


def test_live_transfer_shows_figures() -> None:
    _, lines = transfer_on_terminal(120, {"TERM": "xterm-256color"})
    message, line = lines
    assert message == "retry"
    assert line.startswith("weights  deckard-31b-svdquant: 3.00 of 4.00 GB, ")
    assert re.search(r", \d+ MB/s, \d+:\d\d left ", line)


@pytest.mark.parametrize("environment", ["plain", "no-colour"])
def test_live_transfer_does_not_wrap(environment: str) -> None:
    written, lines = transfer_on_terminal(20, ENVIRONMENTS[environment])
    assert lines[0] == "retry"
    assert len(lines) == 2
    assert "weights  deckard-31b".startswith(lines[1])
    assert b"\x1b[2K" in written
    if environment == "no-colour":
        assert b"\x1b[3" not in written


@pytest.mark.parametrize("environment", ["dumb", "no-term"])
def test_dumb_terminal_gets_plain_lines(environment: str) -> None:
    written, lines = transfer_on_terminal(20, ENVIRONMENTS[environment])
    assert b"\x1b" not in written
    assert lines == ["retry"]


def test_transfer_on_pipe_loads_no_rich() -> None:
    command = [sys.executable, "-c", TRANSFER]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[3], check=True)
    assert (done.stdout, done.stderr) == (b"False\n", b"retry\n")


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
def test_closed_stream_is_no_bug(tmp_path: Path, closed: tuple[int, ...], words: list[str]) -> None:
    code, _, err = run(tmp_path, {}, words, preexec_fn=closing(*closed))
    assert b"Traceback" not in err
    assert code == (0 if words is PLAN else 2)
