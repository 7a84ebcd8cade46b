"""Every command of a fix can be typed: its verb, its options and its settings are known."""

import re

import click
import pytest

from deckard_deploy.cli.main import VERBS, cli, run
from deckard_deploy.failures.signatures import load_signatures

TEXTS = [each.fix for each in load_signatures()]
COMMANDS = sorted({match for text in TEXTS for match in re.findall(r"deckard-deploy (\w+[^;,()|&:]*)", text)})
# `--set KEY=VALUE`, and a further setting after a comma; not the options of other programs.
SETTING = re.compile(r"(?:(?<!ctk config )--set |, )((?:environment\.[A-Z0-9_]+|[a-z][a-z_.-]+)=[^\s,;)]+)")
# N and FILE stand for a value of the user's own, `{limit}` for one of the log.
EXAMPLE_VALUES = {
    "gpu-memory-utilization": "0.5",
    "kv-cache-memory-bytes": "30000000000",
    "max-num-batched-tokens": "4096",
    "chat-template": "/models/deckard-31b/chat_template.jinja",
}
SETTINGS = sorted({match for text in TEXTS for match in SETTING.findall(text) if "{" not in match})
ENGINES = {"vllm-0.19.1": "spark", "vllm-0.32.0": "h200"}


def test_fixes_have_commands_and_settings():
    assert len(COMMANDS) > 50
    assert len(SETTINGS) > 40


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_verb_and_options_are_known(command: str):
    verb, *words = command.split()
    assert verb in VERBS
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    known = {option for each in _with_groups(found) for one in each.params for option in one.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def _with_groups(command: click.Command) -> list[click.Command]:
    if isinstance(command, click.Group):
        return [command, *command.commands.values()]
    return [command]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_setting_is_accepted(setting: str, capsys: pytest.CaptureFixture[str]):
    key, _, value = setting.partition("=")
    if value in ("N", "FILE"):
        value = EXAMPLE_VALUES.get(key, "2")
    codes = []
    for engine, profile in ENGINES.items():
        choice = ["--profile", profile, "--engine", engine, "--set", f"{key}={value}"]
        codes.append(run(["plan", *choice]))
    assert 0 in codes, capsys.readouterr().err
