"""Run beside the engine, by the engine's own Python and nothing else of ours: `python -c <this file>`.

A line of stdin is a JSON object that says what to do; a line of stdout is the result of that `vllm bench serve`, or
{"error": …}. Importing vLLM takes several times as long as a short run, so it is done once: each run is a fork of the
process that did, and as alone as one that a shell starts. When stdin ends nobody waits any more, and the measuring
stops: `docker exec` leaves what it started running when it is killed itself.
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

# Nearly all it imports.
MODULES = ("vllm.entrypoints.cli.main", "vllm.benchmarks.serve", "vllm.entrypoints.cli.serve")
TOO_MUCH = ("generated_texts", "itls", "errors", "start_times")  # megabytes, and nobody reads them again


def main() -> None:
    """Measure whenever told to, until stdin ends."""
    # Quieter than the server, and never on the network for a tokenizer that lies here.
    os.environ.update(VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1")
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever vLLM prints is no answer
    for module in MODULES:
        importlib.import_module(module)
    # Nothing is read ahead: while a run goes on, stdin has to be silent.
    with open(0, "rb", buffering=0) as tasks:
        for line in tasks:
            os.write(answers, f"{json.dumps(_measured(json.loads(line)))}\n".encode())


def _measured(task: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        over, held = os.pipe()  # the child holds the other end for as long as it lives
        child = os.fork()
        if child == 0:
            os.close(over)
            _bench(task, folder)
        os.close(held)
        if over not in select.select([0, over], [], [])[0]:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(over)
        if status:
            said = (folder / "said").read_text(errors="replace") if (folder / "said").is_file() else ""
            lines = [line for line in said.splitlines() if line.strip()]
            return {"error": (lines or [f"it ended with {os.waitstatus_to_exitcode(status)}"])[-1][-300:]}
        return _shortened(json.loads((folder / "result.json").read_text()))


def _bench(task: dict[str, Any], folder: Path) -> None:
    """In the child: what `vllm bench serve` does when it is typed; does not return."""
    status = 1
    try:
        said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY, 0o600)
        for stream in (1, 2):
            os.dup2(said, stream)
        # Line by line: the last line in there is the last one said.
        sys.stdout = os.fdopen(1, "w", buffering=1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        arguments = [*task["arguments"], "--result-dir", str(folder), "--result-filename", "result.json"]
        if task["prompts"]:
            arguments += ["--dataset-path", _write_prompts(folder / "prompts.json", task["prompts"])]
        if task["key"]:
            # Where vllm bench serve looks for it; argv is seen by all.
            os.environ["OPENAI_API_KEY"] = task["key"]
        sys.argv = ["vllm", "bench", "serve", *arguments]
        sys.modules["vllm.entrypoints.cli.main"].main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            sys.stderr.write(end.code)
    except BaseException:  # noqa: BLE001  the last line of it is the answer
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _write_prompts(path: Path, prompts: list[str]) -> str:
    """ShareGPT's layout: what every release's bench reads with the standard library alone."""
    turns = [{"conversations": [{"value": prompt}, {"value": "unused"}]} for prompt in prompts]
    path.write_text(json.dumps(turns), encoding="utf-8")
    return str(path)


def _shortened(result: dict[str, Any]) -> dict[str, Any]:
    first_error = next((error for error in result.get("errors", ()) if error), "")
    latencies = [first + sum(rest) for first, rest in zip(result["ttfts"], result["itls"], strict=True)]
    kept = {name: value for name, value in result.items() if name not in TOO_MUCH}
    return {**kept, "latencies": latencies, "first_error": first_error[-300:]}


if __name__ == "__main__":
    main()
