"""`vllm bench serve` of the running engine, started beside it: once per call, its result as it wrote it."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deckard_deploy.errors import EnvironmentUnfitError, NetworkError

_INSIDE = Path(__file__).with_name("inside_engine.py")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server, and a Python with its vLLM in it.

    server: where vLLM itself listens, seen by that Python, without /v1. model: what the tokenizer is loaded from, seen
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
    target = ("--base-url", endpoint.server, "--model", endpoint.model, "--served-model-name", endpoint.served_name)
    return (*target, *arguments)


def measure(endpoint: Endpoint, arguments: Sequence[str], prompts: Sequence[str] = ()) -> dict[str, Any]:
    """The result JSON of one run, without the texts. prompts: sent as they are, instead of random tokens.

    Raises EnvironmentUnfitError when the program fails and NetworkError when not one request was answered.
    """
    options = [*argv_of(endpoint, arguments), "--save-result", "--save-detailed", "--disable-tqdm"]
    task = {"arguments": options, "prompts": list(prompts), "key": endpoint.key}
    said, output = _run(endpoint, json.dumps(task))
    try:
        result = json.loads(output)
    except ValueError as error:
        last = ([line for line in said.splitlines() if line.strip()] or ["it said nothing"])[-1]
        raise EnvironmentUnfitError(f"vllm bench serve: {last[-300:]}", hint="deckard-deploy status") from error
    if not result["completed"]:
        lines = [line for line in str(result["first_error"]).splitlines() if line.strip()]
        raise NetworkError(
            f"{endpoint.server} answered none of {result['num_prompts']} requests: {(lines or ['no reason'])[-1]}",
            hint="deckard-deploy status",
        )
    return dict(result)


def _run(endpoint: Endpoint, task: str) -> tuple[str, str]:
    """What it said, and its result. stdin stays open: its end is the sign that nobody waits any more."""
    command = [*endpoint.python, "-I", "-c", _INSIDE.read_text(encoding="utf-8")]
    output = ""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as talk:
        try:
            bench = subprocess.Popen(
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
        with bench, contextlib.suppress(BrokenPipeError):  # it ended before it read; what it said tells why
            if bench.stdin and bench.stdout:
                bench.stdin.write(f"{task}\n")
                bench.stdin.flush()
                output = bench.stdout.read()
        talk.seek(0)
        return talk.read(), output
