"""The uv program: found, run, its progress passed on, its failures turned into our errors."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deckard_deploy.errors import DeployError, EnvironmentUnfitError, IntegrityError, NetworkError

Say = Callable[[str], None]

_PROBE_SECONDS = 10
# A user's index, proxy and cache choices stay; these would change what is installed.
_VARIABLES_DROPPED = (
    "UV_TORCH_BACKEND",
    "UV_EXCLUDE_NEWER",
    "UV_NO_VERIFY_HASHES",
    "UV_CONSTRAINT",
    "UV_OVERRIDE",
)
# What uv says that a waiting person wants to read: the stages, and of the downloads those of 100 MiB and more.
_PROGRESS = re.compile(
    r"(Prepared|Installed|Bytecode compiled) \d+|Downloading .+ \((\d{3,}\.\d+MiB|.+GiB)\)"
)
# uv's wording (0.13) -> whose fault it is. The first that is found counts.
_FAILURES: tuple[tuple[str, type[DeployError], str], ...] = (
    (
        "Hash mismatch",
        IntegrityError,
        "a wheel is not the one that was locked: look at your package index or mirror",
    ),
    ("No space left", EnvironmentUnfitError, "free some disk space and run the same command again"),
    ("Failed to fetch", NetworkError, "run the same command again: what was downloaded is kept"),
    ("Failed to download", NetworkError, "run the same command again: what was downloaded is kept"),
    ("error sending request", NetworkError, "run the same command again: what was downloaded is kept"),
)


def uv_binary() -> str:
    """Where the uv of the `cpu` extra is; raises EnvironmentUnfitError without it."""
    try:
        import uv  # noqa: PLC0415 - an extra: only the process runtime needs it

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise EnvironmentUnfitError(
            "uv, which installs the engine, is not here", hint="pip install 'deckard-deploy[cpu]'"
        ) from error


@dataclass(frozen=True)
class Uv:
    """uv at work on one environment. `holder` is the descriptor of the environment's lock, see `_held`."""

    binary: str
    engine_env: Path
    holder: int
    say: Say

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        """Run uv and pass on what it says of its progress; raises the error of its wording if it fails."""
        said: list[str] = []
        with self._start(arguments, environment or {}) as process:
            try:
                for line in process.stdout or ():
                    said.append(line.strip())
                    if _PROGRESS.match(said[-1]):
                        self.say(f"uv: {said[-1]}")
            finally:
                if process.poll() is None and sys.exc_info()[0] is not None:
                    process.terminate()
        if process.returncode:
            raise _error(said, process.returncode)

    def probe(self, requirements: Path, options: tuple[str, ...]) -> None:
        """Ask the index for one route's wheels without fetching them; raises a DeployError within seconds."""
        seconds = str(_PROBE_SECONDS)
        self.run(
            *("pip", "install", "--dry-run", "--no-deps", *options),
            *("--python", sys.executable, "--target", str(self.engine_env), "-r", str(requirements)),
            environment={
                "UV_HTTP_RETRIES": "0",
                "UV_HTTP_TIMEOUT": seconds,
                "UV_HTTP_CONNECT_TIMEOUT": seconds,
            },
        )

    def cache_dir(self) -> Path:
        """The folder of uv's cache."""
        asked = [self.binary, "cache", "dir"]
        return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())

    def _start(self, arguments: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES_DROPPED}
        # The certificates that this machine trusts, as pip does: behind a company's proxy uv's own are not enough.
        kept.setdefault("UV_SYSTEM_CERTS", "true")
        return subprocess.Popen(
            [self.binary, *arguments],
            cwd=self.engine_env.parent,  # not the user's folder, whose pyproject.toml would configure this uv
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(self.holder,),
        )


def _error(said: list[str], code: int) -> DeployError:
    """The error that uv's words stand for: its complaint, and the line that tells what is behind it.

    uv prints `error: …`, then a `cause: …` line for each thing behind the one before; the last is the root.
    """
    start = next((number for number, line in enumerate(said) if line.startswith("error:")), -1)
    complaint = [line.removeprefix("error: ").removeprefix("cause: ") for line in said[start:] if line]
    if not complaint:
        return EnvironmentUnfitError(
            f"uv ended with code {code} and no word", hint="run the same command again"
        )
    for wording, error, hint in _FAILURES:
        if telling := [line for line in complaint if wording in line]:
            root = telling[0] if telling[0] != complaint[0] else complaint[-1]
            return error(f"{complaint[0]}: {root}", hint=hint)
    return EnvironmentUnfitError(f"uv: {complaint[0]}: {complaint[-1]}", hint="run the same command again")
