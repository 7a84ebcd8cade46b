"""The uv program: its path, its runs with their progress, and its failures as our errors."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deckard_deploy.errors import DeployError, EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.system.commands import Say
from deckard_deploy.system.extras import install_command
from deckard_deploy.system.processes import bytes_written

_PROBE_SECONDS = 10
_POLL_S = 2.0
# The user's choice of index, proxy and cache is respected. These variables would change what is installed.
_VARIABLES_DROPPED = (
    "UV_TORCH_BACKEND",
    "UV_EXCLUDE_NEWER",
    "UV_NO_VERIFY_HASHES",
    "UV_CONSTRAINT",
    "UV_OVERRIDE",
)
# The lines of uv that are passed on: the stages, and the downloads of 100 MiB and more.
_PROGRESS = re.compile(
    r"(Prepared|Installed|Bytecode compiled) \d+|Downloading .+ \((\d{3,}\.\d+MiB|.+GiB)\)"
)
# The wording of uv 0.13 -> our error and its hint. The first that is found counts.
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
    """Return the path of the `cpu` extra's uv. Raises EnvironmentUnfitError without it."""
    try:
        import uv  # noqa: PLC0415 - an extra: only the process runtime needs it

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise EnvironmentUnfitError(
            "uv, which installs the engine, is not here", hint=install_command("cpu")
        ) from error


def cache_dir(binary: str) -> Path:
    """Return the folder of uv's cache. binary: the path of uv."""
    done = subprocess.run([binary, "cache", "dir"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


@dataclass(frozen=True)
class Uv:
    """The uv of one environment. lock: the descriptor of the environment's lock, which each uv inherits."""

    binary: str
    engine_env: Path
    lock: int
    say: Say

    def run(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Run uv and pass on its progress. Raises the error that matches its message if it fails.

        on_bytes: gets the number of bytes that this uv has written, every few seconds.
        """
        lines: list[str] = []
        with self._start(arguments, environment or {}) as process, _watching(process.pid, on_bytes):
            try:
                for text in process.stdout or ():
                    line = text.strip()
                    lines.append(line)
                    if _PROGRESS.match(line):
                        self.say(f"uv: {line}")
            finally:
                if process.poll() is None and sys.exc_info()[0] is not None:
                    process.terminate()
        if process.returncode:
            raise _error(lines, process.returncode)

    def probe(self, requirements: Path, options: tuple[str, ...]) -> None:
        """Ask the index for a route's wheels without a download. Raises a DeployError within seconds."""
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

    def _start(self, arguments: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES_DROPPED}
        # Trust the machine's certificates, as pip does: behind a company's proxy, uv's own are not enough.
        kept.setdefault("UV_SYSTEM_CERTS", "true")
        return subprocess.Popen(
            [self.binary, *arguments],
            cwd=self.engine_env.parent,  # in the user's folder, a pyproject.toml would configure this uv
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(self.lock,),
        )


@contextmanager
def _watching(pid: int, on_bytes: Callable[[int], None] | None) -> Iterator[None]:
    """Report the bytes that a process writes, while the block runs."""
    if on_bytes is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_S):
            written = bytes_written(pid)
            if written is not None:
                on_bytes(written)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _error(lines: list[str], code: int) -> DeployError:
    """Return the error that matches uv's output: its complaint and the line that names the cause.

    uv prints `error: …`, then one `cause: …` line for each cause of the one before. The last is the root
    cause.
    """
    complaint = _complaint(lines)
    if not complaint:
        return EnvironmentUnfitError(
            f"uv exited with code {code} and no output", hint="run the same command again"
        )
    for wording, error, hint in _FAILURES:
        matching = [line for line in complaint if wording in line]
        if not matching:
            continue
        root = matching[0]
        if root == complaint[0]:
            root = complaint[-1]
        return error(f"{complaint[0]}: {root}", hint=hint)
    return EnvironmentUnfitError(f"uv: {complaint[0]}: {complaint[-1]}", hint="run the same command again")


def _complaint(lines: list[str]) -> list[str]:
    """Return the lines from `error:` on, without their prefixes; the last line if none begins so."""
    start = -1
    for number, line in enumerate(lines):
        if line.startswith("error:"):
            start = number
            break
    return [line.removeprefix("error: ").removeprefix("cause: ") for line in lines[start:] if line]
