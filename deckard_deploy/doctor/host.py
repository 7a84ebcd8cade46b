"""Reading a host: programs with a time limit, files with a size limit, nothing written."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deckard_deploy.system.text import one_line

TIMEOUT_S = 5.0
MAX_OUTPUT = 4 << 20  # bytes of a program's output that are kept; a kernel log is the longest
MAX_FILE = 1 << 20


@dataclass(frozen=True)
class ProgramResult:
    """The output of a program. `problem` is one line, None when the program ended with status 0."""

    out: str = ""
    problem: str | None = None
    installed: bool = True


@dataclass(frozen=True)
class Host:
    """A host: programs are found by PATH of `environment`, and files are read below `root`."""

    environment: Mapping[str, str]
    root: Path = Path("/")
    timeout_s: float = TIMEOUT_S

    def run(self, program: str, *arguments: str) -> ProgramResult:
        """Run a program that only reads. Never raises: a failure is the result's `problem`."""
        found = shutil.which(program, path=self.environment.get("PATH", ""))
        if found is None:
            return ProgramResult(problem=not_installed_text(program), installed=False)
        try:
            process = subprocess.Popen(
                [found, *arguments],
                env={**self.environment, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its children can be killed with it
            )
        except OSError as error:
            return ProgramResult(problem=f"{program}: {error.strerror or error}")
        return self._wait(process, program)

    def _wait(self, process: "subprocess.Popen[bytes]", program: str) -> ProgramResult:
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            _kill(process)

        timer = threading.Timer(self.timeout_s, end)
        timer.start()
        with process, ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda stream: _read(stream, process), (process.stdout, process.stderr))
            process.wait()
            timer.cancel()
        if timed_out.is_set():
            return ProgramResult(problem=f"{program} did not answer within {self.timeout_s:g} s")
        text = out.decode("utf-8", "replace")
        if process.returncode == 0:
            return ProgramResult(text)
        reason = one_line(err.decode("utf-8", "replace")) or one_line(text)
        return ProgramResult(text, problem=f"{program}: {reason or f'exit status {process.returncode}'}")

    def read(self, path: str) -> str | None:
        """Return a file's text; None when it cannot be read."""
        try:
            with self.path(path).open("rb") as file:
                return file.read(MAX_FILE).decode("utf-8", "replace")
        except OSError:
            return None

    def read_end(self, path: str) -> str | None:
        """Return the end of a text file; None when it cannot be read."""
        try:
            with self.path(path).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_FILE))
                return file.read(MAX_FILE).decode("utf-8", "replace")
        except OSError:
            return None

    def path(self, path: str) -> Path:
        """Return the same path below this host's root."""
        return self.root / path.lstrip("/")


def not_installed_text(program: str) -> str:
    """Return the `problem` of a program that is not on PATH."""
    return f"{program} is not installed"


def _read(stream: IO[bytes] | None, process: "subprocess.Popen[bytes]") -> bytes:
    text = stream.read(MAX_OUTPUT) if stream else b""
    if len(text) == MAX_OUTPUT:
        _kill(process)  # otherwise it would block on the full pipe
    return text


def _kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the process has ended meanwhile
