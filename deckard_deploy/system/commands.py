"""Run other programs: argv as a tuple, an explicit environment, a timeout, captured output."""

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.system.text import last_line

Say: TypeAlias = Callable[[str], None]


def find_program(program: str, environment: Mapping[str, str]) -> str:
    """Return the path of an installed program. Raises EnvironmentUnfitError if it is not installed."""
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
    """Run a program to its end with exactly this environment, and return its output and exit status.

    say: receives the command line, as a shell takes it. Raises EnvironmentUnfitError if the program is not
    installed or exceeds `timeout_s`; not for its exit status.
    """
    program, *arguments = argv
    say(f"$ {shlex.join(argv)}")
    command = [find_program(program, environment), *arguments]
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


def last_output_line(output: str) -> str:
    """Return the last line of a program's output that is not blank, or `no output`."""
    return last_line(output) or "no output"
