"""Commands with a time limit, and the message of one that fails."""

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.system.commands import last_output_line, run


def test_run_reports_command_and_times_out():
    said = list[str]()
    done = run(
        ("sh", "-c", "echo a; echo $X"),
        environment={"PATH": "/bin", "X": "b c"},
        say=said.append,
        timeout_s=9,
    )
    assert (done.stdout, said) == ("a\nb c\n", ["$ sh -c 'echo a; echo $X'"])
    with pytest.raises(EnvironmentUnfitError, match=r"`sh -c` did not answer within 0\.2 s"):
        run(("sh", "-c", "sleep 9"), environment={"PATH": "/bin"}, say=said.append, timeout_s=0.2)


@pytest.mark.parametrize(("text", "line"), [("a\n b \n\n", "b"), ("", "no output"), ("\n \n", "no output")])
def test_last_output_line_skips_blank_lines(text, line):
    assert last_output_line(text) == line
