"""`vllm bench serve` of the running engine, started beside it; each result as it wrote it."""

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
# PYTHONPATH counts, as it does for the server; the folder that the container happens to start in does not.
_ELSEWHERE = "import sys; sys.path[:] = [path for path in sys.path if path]\n"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server, and a Python with its vLLM in it.

    server: where vLLM is asked, seen by that Python, without /v1. model: what the tokenizer is loaded from, seen
    by that Python. python: the command line that starts it, as ("docker", "exec", "-i", ID, "python3").
    """

    server: str
    served_name: str
    model: str
    python: tuple[str, ...]
    environment: Mapping[str, str]
    key: str = field(default="", repr=False)


def argv_of(endpoint: Endpoint, arguments: Sequence[str]) -> tuple[str, ...]:
    """What a person would type to measure the same; both names mean the one server."""
    target = (
        "--base-url",
        endpoint.server,
        "--model",
        endpoint.model,
        "--served-model-name",
        endpoint.served_name,
    )
    return (*target, *arguments)


class Bench:
    """The engine's benchmark, started and waiting for what to measure. See `opened`."""

    def __init__(self, endpoint: Endpoint, process: "subprocess.Popen[str]", talk: IO[str]) -> None:
        self.endpoint, self._process, self._talk = endpoint, process, talk

    def measure(self, arguments: Sequence[str], prompts: Sequence[str] = ()) -> dict[str, Any]:
        """The result JSON of one run, without the texts. prompts: sent as they are, instead of random tokens.

        Raises EnvironmentUnfitError when the program fails and NetworkError when not one request was answered.
        """
        options = [*argv_of(self.endpoint, arguments), "--save-result", "--save-detailed", "--disable-tqdm"]
        task = {"arguments": options, "prompts": list(prompts), "key": self.endpoint.key}
        result = json.loads(self._ask(json.dumps(task)) or json.dumps({"error": self._last_words()}))
        if "error" in result:
            raise EnvironmentUnfitError(f"vllm bench serve: {result['error']}", hint="deckard-deploy status")
        if not result["completed"]:
            lines = [line for line in str(result["first_error"]).splitlines() if line.strip()]
            raise NetworkError(
                f"{self.endpoint.server} answered none of {result['num_prompts']} requests: "
                f"{(lines or ['no reason'])[-1]}",
                hint="deckard-deploy status",
            )
        if not result["total_output_tokens"]:
            raise NetworkError(
                f"{self.endpoint.server} answered {result['completed']} requests without a single token",
                hint="deckard-deploy chat",
            )
        return dict(result)

    def _ask(self, task: str) -> str:
        """A line for a line; empty when the program has ended."""
        if self._process.stdin is None or self._process.stdout is None:
            return ""
        try:
            self._process.stdin.write(f"{task}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it ended before it read; what it said tells why
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        return self._process.stdout.readline()

    def _last_words(self) -> str:
        self._process.wait()
        self._talk.seek(0)
        return ([line for line in self._talk.read().splitlines() if line.strip()] or ["it said nothing"])[-1][
            -300:
        ]


@contextlib.contextmanager
def opened(endpoint: Endpoint) -> Iterator[Bench]:
    """Start it beside the engine; its stdin stays open for as long as somebody waits. Raises EnvironmentUnfitError."""
    command = [*endpoint.python, "-c", _ELSEWHERE + _INSIDE.read_text(encoding="utf-8")]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as talk:
        try:
            process = subprocess.Popen(
                command,
                env=dict(endpoint.environment),
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=talk,
                text=True,
            )
        except OSError as error:
            what = f"cannot start {command[0]}: {error.strerror or error}"
            raise EnvironmentUnfitError(what, hint="deckard-deploy status") from error
        with process:  # closes its stdin, which ends it, and waits
            yield Bench(endpoint, process, talk)
