"""`vllm bench serve` of the running engine, started next to it; each result as vLLM wrote it."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deckard_deploy.errors import EnvironmentUnfitError, NetworkError

_INSIDE = Path(__file__).with_name("inside_engine.py")
# The current folder of the container must not shadow a module. PYTHONPATH counts, as it does for the server.
_ELSEWHERE = "import sys; sys.path[:] = [path for path in sys.path if path]\n"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server, and a Python with its vLLM in it.

    server: the URL of vLLM as that Python sees it, without /v1. model: the source of the tokenizer as that
    Python sees it. python: the command line that starts that Python, such as ("docker", "exec", "-i", ID,
    "python3").
    """

    server: str
    served_name: str
    model: str
    python: tuple[str, ...]
    environment: Mapping[str, str]
    key: str = field(default="", repr=False)


def bench_options(endpoint: Endpoint, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the options that name the server and the model, followed by `arguments`."""
    url = ("--base-url", endpoint.server)
    model = ("--model", endpoint.model, "--served-model-name", endpoint.served_name)
    return (*url, *model, *arguments)


class Bench:
    """The engine's benchmark, started and waiting for a task. See `opened`."""

    def __init__(self, endpoint: Endpoint, process: "subprocess.Popen[str]", messages: IO[str]) -> None:
        self.endpoint = endpoint
        self._process = process
        self._messages = messages

    def measure(self, arguments: Sequence[str], prompts: Sequence[str] = ()) -> dict[str, Any]:
        """Measure one run and return its result JSON, without the texts.

        prompts: sent as they are, instead of random tokens. Raises EnvironmentUnfitError when the program
        fails and NetworkError when no request was answered.
        """
        options = [
            *bench_options(self.endpoint, arguments),
            "--save-result",
            "--save-detailed",
            "--disable-tqdm",
        ]
        task = {"arguments": options, "prompts": list(prompts), "key": self.endpoint.key}
        line = self._exchange(json.dumps(task))
        if not line:
            raise _failed(self._last_message())
        result: dict[str, Any] = json.loads(line)
        self._require_answers(result)
        return result

    def _require_answers(self, result: dict[str, Any]) -> None:
        if "error" in result:
            raise _failed(result["error"])
        if not result["completed"]:
            reason = _last_line(str(result["first_error"])) or "no reason"
            raise NetworkError(
                f"{self.endpoint.server} answered none of {result['num_prompts']} requests: {reason}",
                hint="deckard-deploy status",
            )
        if not result["total_output_tokens"]:
            raise NetworkError(
                f"{self.endpoint.server} answered {result['completed']} requests without a single token",
                hint="deckard-deploy chat",
            )

    def _exchange(self, task: str) -> str:
        """Send a line and return the answer's line; empty when the program has ended."""
        if self._process.stdin is None or self._process.stdout is None:
            return ""
        try:
            self._process.stdin.write(f"{task}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # the program ended before it read; its messages tell why
            with contextlib.suppress(BrokenPipeError):  # close() tries to write the rest once more
                self._process.stdin.close()
        return self._process.stdout.readline()

    def _last_message(self) -> str:
        self._process.wait()
        self._messages.seek(0)
        return (_last_line(self._messages.read()) or "no output")[-300:]


def _failed(reason: str) -> EnvironmentUnfitError:
    return EnvironmentUnfitError(f"vllm bench serve: {reason}", hint="deckard-deploy status")


def _last_line(text: str) -> str:
    """Return the last line that is not blank, or an empty string."""
    for line in reversed(text.splitlines()):
        if line.strip():
            return line
    return ""


@contextlib.contextmanager
def benchmark_worker(endpoint: Endpoint) -> Iterator[Bench]:
    """Start the benchmark next to the engine; it ends with the context. Raises EnvironmentUnfitError."""
    command = [*endpoint.python, "-c", _ELSEWHERE + _INSIDE.read_text(encoding="utf-8")]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as messages:
        try:
            process = subprocess.Popen(
                command,
                env=dict(endpoint.environment),
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                text=True,
            )
        except OSError as error:
            what = f"cannot start {command[0]}: {error.strerror or error}"
            raise EnvironmentUnfitError(what, hint="deckard-deploy status") from error
        with process:  # closes its stdin, which ends it, and waits
            yield Bench(endpoint, process, messages)
