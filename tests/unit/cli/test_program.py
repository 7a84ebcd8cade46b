"""Suggested commands: the program that was called, and the options that were given."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from deckard_deploy.cli.main import VERBS, cli, run
from deckard_deploy.cli.program import PROGRAM, typed

REPO = Path(__file__).parents[3]


def root_of(line: str) -> click.Context:
    """Return the root context of a command line, parsed down to its verb, which is not run."""
    words = shlex.split(line)
    root = cli.make_context("deckard-deploy", words)
    command: click.Command = cli
    context = root
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None
        command = found
        context = command.make_context(name, list(words), parent=context)
    return root


@pytest.mark.parametrize(
    ("line", "hint", "expected"),
    [
        (
            "up --profile spark --set max-num-seqs=3",
            "deckard-deploy up --force",
            "up --profile spark --set max-num-seqs=3 --force",
        ),
        (
            "up -p spark --locked --dry-run",
            "go on with `deckard-deploy up`",
            "go on with `up --profile spark --locked`",
        ),
        (
            "up --set a=1 --set kv-cache-dtype=fp8",
            "deckard-deploy up with a smaller --set kv_cache_dtype=N",
            "up --set a=1 with a smaller --set kv_cache_dtype=N",
        ),
        ("up --drafter mtp", "deckard-deploy up --drafter none", "up --drafter none"),
        (
            "up -p spark --engine x --state-dir /a",
            "without a GPU: deckard-deploy up --profile cpu",
            "without a GPU: up --state-dir /a --profile cpu",
        ),
        (
            "up --state-dir '/a b'",
            "deckard-deploy status, or restart: deckard-deploy down --name x",
            "status --state-dir '/a b', or restart: down --state-dir '/a b' --name x",
        ),
        ("watch --name two", "deckard-deploy logs", "logs --name two"),
        ("keys add bob --state-dir /a", "deckard-deploy keys revoke bob", "keys revoke --state-dir /a bob"),
    ],
)
def test_suggestion_keeps_given_options(line: str, hint: str, expected: str) -> None:
    assert typed(hint, root_of(line)).replace(f"{PROGRAM} ", "") == expected


@pytest.mark.parametrize(
    "text",
    [
        "rm -r /home/me/deckard-deploy up/x",
        "docker pull registry.local/deckard-deploy:1",
        "cannot write /srv/deckard-deploy",
        "another deckard-deploy has just taken deployment cpu",
        "pip install 'deckard-deploy[cpu]'",
    ],
)
def test_other_uses_of_the_name_stay(text: str) -> None:
    assert typed(text, root_of("up --profile spark")) == text


def call(program: list[str], *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [*program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_hint_names_the_program_that_was_called(tmp_path: Path) -> None:
    installed = Path(sys.executable).with_name("deckard-deploy")
    missing = ("rollback", "--state-dir", str(tmp_path))
    elsewhere = {"PATH": "/usr/bin:/bin"}
    assert f"{installed} up" in call([str(installed)], *missing, **elsewhere)
    on_path = {"PATH": f"{installed.parent}:/usr/bin:/bin"}
    assert "try: deckard-deploy up" in call(["deckard-deploy"], *missing, **on_path)
    assert f"{sys.executable} -m deckard_deploy up" in call(
        [sys.executable, "-m", "deckard_deploy"], *missing
    )
    launcher = {"DECKARD_PROGRAM": "/my clones/deckard"}
    assert "try: '/my clones/deckard' up" in call([str(installed)], *missing, **launcher)


def test_examples_of_help_name_the_program_that_was_called() -> None:
    program = [sys.executable, "-m", "deckard_deploy"]
    for arguments in (["up"], ["bench", "report"], ["profiles", "here"], []):
        text = call(program, *arguments, "--help", DECKARD_PROGRAM="./deckard")
        assert re.search(r"Example:\n +\./deckard ", text), text
        assert "deckard-deploy " not in text.replace("'deckard-deploy[", "")


def test_hints_of_doctor_name_the_program_that_was_called() -> None:
    facts = REPO / "tests/unit/doctor/facts/laptop-no-docker.json"
    text = call(
        [sys.executable, "-m", "deckard_deploy"], "doctor", "--facts", str(facts), DECKARD_PROGRAM="./deckard"
    )
    assert "./deckard up --profile cpu" in " ".join(text.split())


def texts_of_package() -> Iterator[tuple[str, str]]:
    """Yield each text of the package that names a command, with its place."""
    for path in sorted((REPO / "deckard_deploy").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            text = ""
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values]
                text = "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            if "deckard-deploy " in text:
                yield f"{path.relative_to(REPO)}:{getattr(node, 'lineno', 0)}", text
    for path in sorted((REPO / "deckard_deploy/failures/known").glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
            yield entry["id"], re.sub(r"\{\w+\}", "X", entry.get("fix", ""))


def suggested_commands() -> Iterator[tuple[str, list[str]]]:
    for place, text in texts_of_package():
        for found in re.finditer(r"(?<![^\s`(:])deckard-deploy ([a-z].*?)(?=[`;)\n|>]|, |: |$)", text):
            if found[1].split()[0] in VERBS:
                yield f"{place}: {found[1]}", found[1].split()


COMMANDS = list(suggested_commands())


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[place for place, _ in COMMANDS])
def test_suggested_commands_exist(words: list[str]) -> None:
    """Each verb, subcommand and option that a text of the package suggests is one of the program."""
    command: click.Command | None = cli
    rest = list(words)
    context = click.Context(cli)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command = command.get_command(context, rest.pop(0))
    assert command is not None, words
    options = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    for word in rest:
        if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word):
            assert word.partition("=")[0] in {*options, "--help", "-h"}, words


def test_no_suggestion_is_left_as_a_fragment() -> None:
    for place, text in texts_of_package():
        assert "deckard-deploy …" not in text, place


def test_hint_of_error_keeps_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["down", "--name", "two", "--state-dir", str(tmp_path)]) == 2
    assert f"up --name two --state-dir {tmp_path}" in capsys.readouterr().err


def test_version_tells_two_commits_apart(tmp_path: Path) -> None:
    """With the same version number: what a report of a problem quotes."""
    shutil.copytree(
        REPO / "deckard_deploy", tmp_path / "deckard_deploy", ignore=shutil.ignore_patterns("__pycache__")
    )
    git = ("git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "--quiet"], check=True)
    command = [sys.executable, "-m", "deckard_deploy", "--version"]
    said = []
    for message in ("one", "two"):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", message], check=True)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        said.append(done.stdout)
    assert said[0] != said[1]
