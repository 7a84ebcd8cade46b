"""Run `vllm bench serve` with the engine's own Python, and nothing else of ours: `python -c <this file>`.

A line of stdin is a task as a JSON object; the answer is a line of stdout with the result JSON of that run,
or {"error": …}. Importing vLLM takes several times as long as a short run, so it is done once. Each run is a
fork of the process that imported it, so runs share no state. The measuring stops when stdin ends, because
`docker exec` leaves its process running when it is killed itself.
"""

import importlib
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

# These import nearly all that a run needs.
MODULES = ("vllm.entrypoints.cli.main", "vllm.benchmarks.serve", "vllm.entrypoints.cli.serve")
UNUSED = ("generated_texts", "itls", "errors", "start_times")  # megabytes, and not used again


def main() -> None:
    """Measure each task of stdin, until stdin ends."""
    # Quieter than the server, and no network access for a local tokenizer.
    os.environ.update(VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1")
    answers = os.dup(1)
    os.dup2(2, 1)  # text that vLLM prints must not become an answer
    for module in MODULES:
        importlib.import_module(module)
    # Unbuffered: stdin must be unreadable during a run, so that its end can be noticed.
    with open(0, "rb", buffering=0) as tasks:
        for line in tasks:
            result = _measure(json.loads(line))
            os.write(answers, f"{json.dumps(result)}\n".encode())


def _measure(task: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child_ended, held_by_child = (
            os.pipe()
        )  # readable when the child has ended, because that closes the other end
        child = os.fork()
        if child == 0:
            os.close(child_ended)
            _bench(task, folder)
        os.close(held_by_child)
        readable, _, _ = select.select([0, child_ended], [], [])
        if child_ended not in readable:  # stdin has ended
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(child_ended)
        if status:
            return {"error": _error(folder / "output", status)}
        return _shorten(json.loads((folder / "result.json").read_text()))


def _error(output: Path, status: int) -> str:
    """Return the last line of the child's output, or its exit status."""
    if output.is_file():
        for line in reversed(output.read_text(errors="replace").splitlines()):
            if line.strip():
                return line[-300:]
    return f"it ended with {os.waitstatus_to_exitcode(status)}"


def _bench(task: dict[str, Any], folder: Path) -> None:
    """Run `vllm bench serve` in the child, as if it had been typed; does not return."""
    status = 1
    try:
        output = os.open(folder / "output", os.O_CREAT | os.O_WRONLY, 0o600)
        for stream in (1, 2):
            os.dup2(output, stream)
        # Line buffered, so that the last line of the file is the last one written.
        sys.stdout = os.fdopen(1, "w", buffering=1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        arguments = [*task["arguments"], "--result-dir", str(folder), "--result-filename", "result.json"]
        if task["prompts"]:
            arguments += ["--dataset-path", _write_prompts(folder / "prompts.json", task["prompts"])]
        if task["key"]:
            # vllm bench serve reads the key from here. Every process can read argv.
            os.environ["OPENAI_API_KEY"] = task["key"]
        sys.argv = ["vllm", "bench", "serve", *arguments]
        sys.modules["vllm.entrypoints.cli.main"].main()
        status = 0
    except SystemExit as end:
        if end.code is None:
            status = 0
        elif isinstance(end.code, int):
            status = end.code
        elif isinstance(end.code, str):
            sys.stderr.write(end.code)
    except BaseException:  # noqa: BLE001  the last line of the traceback becomes the answer
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _write_prompts(path: Path, prompts: list[str]) -> str:
    """Write the prompts in ShareGPT's layout, which every release reads with the standard library alone."""
    turns = [{"conversations": [{"value": prompt}, {"value": "unused"}]} for prompt in prompts]
    path.write_text(json.dumps(turns), encoding="utf-8")
    return str(path)


def _shorten(result: dict[str, Any]) -> dict[str, Any]:
    """Replace the large lists of a result by the latencies and the first error."""
    first_error = ""
    for error in result.get("errors", ()):
        if error:
            first_error = error[-300:]
            break
    latencies = []
    for first_token_s, between_tokens_s in zip(result["ttfts"], result["itls"], strict=True):
        latencies.append(first_token_s + sum(between_tokens_s))
    kept = {name: value for name, value in result.items() if name not in UNUSED}
    return {**kept, "latencies": latencies, "first_error": first_error}


if __name__ == "__main__":
    main()
