"""Completion: the scripts of bash, zsh and fish, run by these shells, complete verbs, options and names."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from deckard_deploy.running.layout import StateDir
from tests.support import sample_records

INSTALLED = Path(sys.executable).with_name("deckard-deploy")
# Before the lines, and for each line: what it takes to print the completions without a terminal.
BASH = (
    "source <({program} completion bash); compopt() {{ :; }}",
    """COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
{function} "{program}" 2>/dev/null; printf '%s\\n' "${{COMPREPLY[@]}}"
""",
)
FISH = ("{program} completion fish | source", 'complete --do-complete "{words}"')
ZSH = (
    """autoload -U compinit; compinit -u -d "$HOME/zcompdump"; source <({program} completion zsh)
_describe() {{ print -l -- ${{completions_with_descriptions%%:*}}; }}; compadd() {{ print -l -- $completions; }}""",
    "words=({words}); CURRENT=$#words; {function}",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a state directory with a deployment, a record and a key."""
    state = StateDir(tmp_path / "state")
    (state.create("my-spark").releases / "one").mkdir()
    sample_records.save_three(state.bench)
    done = subprocess.run(
        [INSTALLED, "keys", "add", "alice", "--state-dir", state.root], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return state.root


def completed(shell: str, lines: Sequence[str], home: Path, program: Path = INSTALLED) -> list[list[str]]:
    """Return the completions of each line in one shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    before, each = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    function = f"_{program.name.replace('-', '_')}_completion"
    script = [before.format(program=program)]
    for line in lines:
        words = f"{program} {line}" if program.name == "deckard" else f"deckard-deploy {line}"
        script += [each.format(program=program, words=words, function=function), "echo @@"]
    environment = {**os.environ, "DECKARD_HOME": str(home), "HOME": str(home.parent)}
    if program == INSTALLED:
        environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", "\n".join(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
    )
    answers = done.stdout.split("@@\n")[:-1]
    assert answers, done.stderr
    return [[text.split("\t")[0] for text in answer.splitlines() if text] for answer in answers]


SHELLS = pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
EXPECTED = {
    "stat": ["status"],
    "bench st": ["startup"],
    "up --prof": ["--profile"],
    "up --profile spa": ["spark"],
    "up --engine vllm-0.32": ["vllm-0.32.0", "vllm-0.32.0-cpu"],
    "plan --drafter no": ["none"],
    "logs --name my": ["my-spark"],
    "bench show la": ["last"],
    "keys revoke al": ["alice"],
    "models show tiny-gemma4-m": ["tiny-gemma4-moe"],
}


@pytest.mark.slow
@SHELLS
def test_shell_completes(shell: str, home: Path) -> None:
    found = completed(shell, list(EXPECTED), home)
    assert dict(zip(EXPECTED, found, strict=True)) == EXPECTED


@SHELLS
def test_checkout_is_completed_by_its_own_name(shell: str, home: Path, tmp_path: Path) -> None:
    launcher = tmp_path / "deckard"
    launcher.write_text(f'#!/bin/sh\nDECKARD_PROGRAM=$0 exec {INSTALLED} "$@"\n')
    launcher.chmod(0o755)
    assert completed(shell, ["up --profile spa"], home, launcher) == [["spark"]]


def test_unreadable_state_completes_nothing(tmp_path: Path) -> None:
    (tmp_path / "deployments").write_text("no folder")
    environment = {
        **os.environ,
        "_DECKARD_DEPLOY_COMPLETE": "bash_complete",
        "COMP_WORDS": "deckard-deploy logs --name b",
        "COMP_CWORD": "3",
        "DECKARD_HOME": "/proc/1/root/../../etc/shadow/x",
    }
    done = subprocess.run([INSTALLED], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("", "")
