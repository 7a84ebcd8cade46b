"""The process that quantizes, in ModelOpt's own environment: its start, its progress and its failure."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deckard_deploy.errors import DoesNotFitError, EnvironmentUnfitError
from deckard_deploy.system.commands import Say
from deckard_deploy.system.text import clock, escaped, shorten

INSIDE = Path(__file__).with_name("inside_modelopt.py")
_END_S = 30.0  # from the end of stdin, at which the process ends itself
_KILLED = -9  # by the kernel, for want of memory
_LINE_SECONDS = 15.0
_LOG_END = 64 << 10
# Passed on: what decides about the GPU, the number of threads and temporary files. No token, and no user's Python.
_VARIABLES = (
    "PATH", "HOME", "TMPDIR", "LANG", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS",
    "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "OPENBLAS_CORETYPE",
)  # fmt: skip
_OUT_OF_MEMORY = ("OutOfMemoryError", "CUDA out of memory", "MemoryError", "DefaultCPUAllocator")


@dataclass
class ProgressLines:
    """Lines of progress: the begin of each phase, then one every fifteen seconds with the time that is left."""

    say: Say
    now: Callable[[], float] = time.monotonic
    _phase: str = ""
    _began: float = 0.0
    _said: float = field(default=0.0)

    def show(self, phase: str, done: float, what: str) -> None:
        """Report a phase. done: 0 to 1."""
        now = self.now()
        if phase != self._phase:
            self._phase, self._began, self._said = phase, now, now
            self.say(f"quantize {phase}: {escaped(what)}")
        elif now - self._said >= _LINE_SECONDS and 0 < done < 1:
            self._said = now
            left = (now - self._began) / done * (1 - done)
            self.say(f"quantize {phase} {done:.0%}, about {clock(left)} left: {escaped(what)}")


def run_worker(python: Path, job: Path, log: Path, lines: ProgressLines) -> dict[str, Any]:
    """Run a job to its end and return its result. log: gets what the libraries print.

    Raises DoesNotFitError if memory ran out, EnvironmentUnfitError for every other failure.
    """
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    result: dict[str, Any] | None = None
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [python, "-I", INSIDE, job],
            cwd=job.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                if not line.startswith(b'{"'):
                    continue  # what a library prints while it is imported
                message = json.loads(line)
                result = message.get("result")
                if result is None:
                    lines.show(message["phase"], message["done"], message["what"])
            process.wait()
        finally:
            _end(process)
    if process.returncode or result is None:
        raise _failure(process.returncode, log)
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _failure(code: int, log: Path) -> DoesNotFitError | EnvironmentUnfitError:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_END))
        output = file.read().decode(errors="replace")
    lines = [line for line in output.splitlines() if line.strip()]
    last = shorten(escaped(lines[-1].strip()), 200) if lines else "no output"
    if code == _KILLED or any(words in output for words in _OUT_OF_MEMORY):
        return DoesNotFitError(
            f"quantizing ran out of memory (exit code {code}): {last}",
            hint="a machine with more memory, or a recipe with a shorter sequence_length",
        )
    if "No space left on device" in output:
        return EnvironmentUnfitError(f"ModelOpt found no space left on the disk: {last}", hint="df -h; df -i")
    return EnvironmentUnfitError(
        f"ModelOpt failed (exit code {code}), and nothing was written: {last}", hint=f"less {log}"
    )
