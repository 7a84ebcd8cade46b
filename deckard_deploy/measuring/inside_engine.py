"""Run beside the engine, by the engine's own Python and nothing else of ours: `python -I -c <this file>`.

One JSON object on the first line of stdin says what to do; the result of `vllm bench serve` comes back on stdout. When
stdin ends before that, nobody waits any more, and the measuring stops: `docker exec` leaves what it started running
when it is killed itself.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

TOO_MUCH = ("generated_texts", "itls", "errors", "start_times")  # megabytes, and nobody reads them again


def main() -> int:
    """Measure once; returns the exit code of `vllm bench serve`."""
    task = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*task["arguments"], "--result-dir", folder, "--result-filename", "result.json"]
        if task["prompts"]:
            arguments += ["--dataset-path", _write_prompts(Path(folder) / "prompts.json", task["prompts"])]
        # Quieter than the server, and never on the network for a tokenizer that lies here.
        environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
        if task["key"]:
            environment["OPENAI_API_KEY"] = task["key"]  # where vllm bench serve looks for it; argv is seen by all
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve", *arguments]
        with subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=2) as bench:
            threading.Thread(target=_stop_when_alone, args=(bench,), daemon=True).start()
            code = bench.wait()
        if code == 0:
            sys.stdout.write(json.dumps(_shortened(json.loads((Path(folder) / "result.json").read_text()))))
            sys.stdout.flush()
    return code


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


def _stop_when_alone(bench: "subprocess.Popen[bytes]") -> None:
    sys.stdin.read()
    with contextlib.suppress(ProcessLookupError):
        bench.kill()


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # at once: the thread that reads stdin would hold up an orderly end
