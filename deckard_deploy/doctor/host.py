"""The one door through which facts are read: programs with a time limit, files with a size limit, nothing written."""

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

TIMEOUT_S = 5.0
MAX_OUTPUT = 4 << 20  # bytes of a program's output that are kept; a kernel log is the longest
MAX_FILE = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What a program said. `problem` is one line, None when it ended with status 0."""

    out: str = ""
    problem: str | None = None
    installed: bool = True


@dataclass(frozen=True)
class Host:
    """Where programs are looked for (PATH of `environment`) and files are read (below `root`)."""

    environment: Mapping[str, str]
    root: Path = Path("/")
    timeout_s: float = TIMEOUT_S

    def ask(self, program: str, *arguments: str) -> Answer:
        """Run a program that only reads. Never raises: what went wrong is `problem`."""
        found = shutil.which(program, path=self.environment.get("PATH", ""))
        if found is None:
            return Answer(problem=not_installed(program), installed=False)
        try:
            process = subprocess.Popen(
                [found, *arguments],
                env={**self.environment, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its children end with it
            )
        except OSError as error:
            return Answer(problem=f"{program}: {error.strerror or error}")
        return self._answer(process, program)

    def _answer(self, process: "subprocess.Popen[bytes]", program: str) -> Answer:
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(self.timeout_s, end)
        timer.start()
        with process, ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda stream: _read(stream, process), (process.stdout, process.stderr))
            process.wait()
            timer.cancel()
        text = out.decode("utf-8", "replace")
        if late.is_set():
            return Answer(problem=f"{program} did not answer within {self.timeout_s:g} s")
        if process.returncode:
            words = (
                one_line(err.decode("utf-8", "replace"))
                or one_line(text)
                or f"exit status {process.returncode}"
            )
            return Answer(text, problem=f"{program}: {words}")
        return Answer(text)

    def read(self, path: str) -> str | None:
        """A file's text, None when it cannot be read."""
        try:
            with self.path(path).open("rb") as file:
                return file.read(MAX_FILE).decode("utf-8", "replace")
        except OSError:
            return None

    def path(self, path: str) -> Path:
        """The same path below this host's root."""
        return self.root / path.lstrip("/")


def not_installed(program: str) -> str:
    """What an answer's `problem` says of a program that is not on PATH."""
    return f"{program} is not installed"


def one_line(text: str, limit: int = 160) -> str:
    """The last line that says something, printable and short."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = "".join(letter if letter.isprintable() else " " for letter in lines[-1]) if lines else ""
    return words if len(words) <= limit else words[: limit - 1] + "…"


def _read(stream: IO[bytes] | None, process: "subprocess.Popen[bytes]") -> bytes:
    text = stream.read(MAX_OUTPUT) if stream else b""
    if len(text) == MAX_OUTPUT:
        _kill(process)  # it would wait for a reader for ever
    return text


def _kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended meanwhile
