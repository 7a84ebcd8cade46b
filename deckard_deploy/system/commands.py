"""The one door through which this part of the program runs other programs."""

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from deckard_deploy.errors import EnvironmentUnfitError

Say: TypeAlias = Callable[[str], None]


def find(program: str, environment: Mapping[str, str]) -> str:
    """The program's path. Raises EnvironmentUnfitError when it is not installed."""
    found = shutil.which(program, path=environment.get("PATH", ""))
    if found is None:
        raise EnvironmentUnfitError(
            f"{program} is not installed", hint=f"install {program}, or put it on PATH"
        )
    return found


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    say: Say,
    timeout_s: float,
    folder: Path = Path("/"),
) -> subprocess.CompletedProcess[str]:
    """Run to the end with exactly this environment, output captured; `say` gets the line that could be pasted.

    The exit status is the caller's to judge. Raises EnvironmentUnfitError: not installed, or not done in time.
    """
    program, *arguments = argv
    say(f"$ {shlex.join(argv)}")
    command = [find(program, environment), *arguments]
    try:
        return subprocess.run(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnfitError(
            f"`{shlex.join(argv[:2])}` did not answer within {timeout_s:g} s",
            hint=f"see what it waits for: {shlex.join(argv)}",
        ) from error


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
