"""Reading a host: every failure of a program or a file becomes one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from deckard_deploy.doctor.host import MAX_FILE, MAX_OUTPUT, Host
from deckard_deploy.system.text import one_line


def test_program_is_found_on_the_hosts_path_only(host: Host, program):
    assert host.run("doctor-test").problem == "doctor-test is not installed"
    assert not host.run("doctor-test").installed
    program("doctor-test", 'echo "$1 and $2"; echo noise >&2')
    answer = host.run("doctor-test", "a", "b c")
    assert (answer.out, answer.problem, answer.installed) == ("a and b c\n", None, True)


def test_failing_program_reports_its_last_line(host: Host, program):
    program("doctor-test", "echo fact; echo first >&2; echo last words >&2; exit 3")
    answer = host.run("doctor-test")
    assert (answer.out, answer.problem) == ("fact\n", "doctor-test: last words")
    program("doctor-test", "echo only this; exit 3")
    assert host.run("doctor-test").problem == "doctor-test: only this"
    program("doctor-test", "exit 3")
    assert host.run("doctor-test").problem == "doctor-test: exit status 3"


def test_hanging_program_is_killed_with_its_children(host: Host, program, tmp_path: Path):
    # The child would hold the pipe open, and would write the file if it lived.
    program("doctor-test", f"echo before; sleep 600; echo late > {tmp_path}/late")
    answer = replace(host, timeout_s=0.2).run("doctor-test")
    assert (answer.out, answer.problem) == ("", "doctor-test did not answer within 0.2 s")
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("stream", ["1", "2"])
def test_endless_output_is_cut_off(host: Host, program, stream: str):
    program("doctor-test", f"exec yes >&{stream}")
    answer = host.run("doctor-test")
    assert answer.problem is not None
    assert len(answer.out) <= MAX_OUTPUT
    assert len(answer.problem) < 200


def test_file_that_is_not_a_program_is_a_problem(host: Host, program, tmp_path: Path):
    program("doctor-test", "")
    (tmp_path / "bin/doctor-test").write_bytes(b"\x00\x01\x02")
    assert (host.run("doctor-test").problem or "").startswith("doctor-test: Exec format error")


def test_invalid_utf8_is_replaced(host: Host, program):
    program("doctor-test", r"printf 'a\377\376\n'")
    assert host.run("doctor-test").out == "a��\n"


def test_standard_input_is_empty(host: Host, program):
    program("doctor-test", "cat; echo end")
    assert host.run("doctor-test").out == "end\n"


def test_file_is_read_up_to_the_limit(host: Host, root: Path):
    assert host.read("/proc/none") is None
    (root / "folder").mkdir()
    assert host.read("/folder") is None
    (root / "file").write_bytes(b"x" * (MAX_FILE + 5))
    assert len(host.read("/file") or "") == MAX_FILE


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("\n \n", ""),
        ("a\n b \n\n", "b"),
        ("\x1b[31mred\x07", " [31mred "),
        ("x" * 500, "x" * 159 + "…"),
    ],
)
def test_one_line_is_last_printable_line(text: str, line: str):
    assert one_line(text) == line
