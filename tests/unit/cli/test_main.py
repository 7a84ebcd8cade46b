"""The boundary: exit codes, one-line errors, help of every command."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deckard_deploy.cli import main
from deckard_deploy.cli.main import VERBS, cli, run
from deckard_deploy.cli.program import with_verb_contexts
from tests.support.fake_deployment import FakeDeployment


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = list(commands(cli))


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_help_ends_with_example(path: tuple[str, ...], command: click.Command) -> None:
    text = (command.help or "").rstrip()
    assert "Example:\n" in text, path
    assert f"deckard-deploy {path[0]}" in text.splitlines()[-1]
    undescribed = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert undescribed == []


@pytest.mark.parametrize(
    "group", [command for _, command in ALL if isinstance(command, click.Group)], ids=lambda group: group.name
)
def test_help_of_group_cuts_no_sentence(group: click.Group) -> None:
    """Click ends the first sentence of a subcommand with "..." if it does not fit in 80 columns."""
    with click.Context(group, info_name=group.name, terminal_width=80) as context:
        assert "..." not in with_verb_contexts(group).get_help(context).replace("[ARGS]...", "")


def test_help_lists_every_verb_in_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert [verb for verb in VERBS if f"\n  {verb} " not in text] == []
    assert "Other:" not in text


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_match_their_commands(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert (command.help or "").splitlines()[0] == VERBS[verb]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["stats"], "did you mean 'status'?"),
        (["stop"], "did you mean 'down'?"),
        (["help"], "did you mean '--help'?"),
        (["version"], "did you mean '--version'?"),
        (["up", "--profil", "spark"], "did you mean '--profile'?"),
        (["up", "spark"], "did you mean --profile spark?"),
        (["up", "--name", "Two"], "error: --name Two: 'Two': a name of"),
        (["plan", "-p", "cpu", "--drafter", "on"], "no drafter named 'on'; tiny-gemma4 has: tiny-assistant"),
        (["plan", "-p", "spark", "--set", "max-model-len=32k"], "32768 (vLLM's 32K) or 32000 (32k)"),
        (["render", "compose", "--profile"], "requires an argument"),
        (["render", "compose", "--profile", "sparc"], "did you mean 'spark'?"),
        (["render", "compose", "--profile", "cpu"], "runs without Docker"),
    ],
)
def test_bad_usage_is_one_line_and_exits_2(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert text in captured.err


def test_unforeseen_error_has_traceback(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("seen")

    monkeypatch.setattr(main.cli, "make_context", broken)
    assert run([]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: seen" in said
    assert said.rstrip().endswith("with all these lines and the archive of: deckard-deploy support")


def test_closed_reader_ends_run_silently() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "deckard_deploy", "profiles", "show", "spark"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_under_stdout_is_one_line(unbuffered: str) -> None:
    command = [sys.executable, "-m", "deckard_deploy", "profiles", "show", "spark"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ending_signal_is_an_interrupt(number: signal.Signals) -> None:
    code = (
        "import os, click; from deckard_deploy.cli import main\n"
        f"kill = click.Command('x', callback=lambda: os.kill(os.getpid(), {int(number)}))\n"
        "main.cli.callback = None; main.cli.add_command(kill)\n"
        "main.cli.get_command = lambda ctx, name: main.cli.commands.get(name)\n"
        "import sys; sys.argv[1:] = ['x']; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


HEAVY = {"pydantic", "docker", "requests", "jinja2", "yaml", "rich", "huggingface_hub"}


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("--help", set()),
        ("profiles list", set()),
        ("plan --profile spark", {"pydantic", "yaml"}),
        ("plan --profile cpu", {"pydantic", "yaml"}),
        ("render compose --profile spark", {"pydantic", "yaml", "jinja2"}),
        ("render command --profile b200", {"pydantic", "yaml", "jinja2"}),
        ("status --name box", {"pydantic", "yaml", "requests"}),
    ],
)
def test_command_imports_only_what_it_needs(line: str, needed: set[str], tmp_path: Path) -> None:
    """`verify --fast` has a test of its own, in test_verify.py, since it needs weights."""
    fake = FakeDeployment(tmp_path)
    fake.releases.switch(fake.stored(fake.plan())[0])
    code = (
        "import sys; from deckard_deploy.cli.main import run; code = run(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()],
        env={**os.environ, "DECKARD_HOME": str(fake.state.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr  # 3: `status` of a stopped deployment
    loaded = set(done.stderr.splitlines()[-1].split())
    assert loaded & HEAVY <= needed
