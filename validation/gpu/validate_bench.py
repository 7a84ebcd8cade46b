"""Measure with the tool's own `bench` on a GPU: the tiny checkpoint and the 31B's shapes, with the patched drafter too.

On an sm_90 machine with PyTorch, without a network, from the repository's root, with .gpu/site.tar.xz (see bundle.py)
and .gpu/tiny (deckard_deploy.rehearsal.gemma4.write, which needs ml_dtypes):

    python3 -m validation.gpu.validate_bench --out DIR [--seconds 350] [--only CASE …]

All servers start at once on GPU 0, for starting is what takes long; each is then measured alone, the others idle. OUT
gets a record for each case (`bench show FILE`), what its server said, and cases.json. A sweep that runs out of time
leaves the runs that it had. Without a GPU: --cpu PYTHON, one that has vLLM's CPU build, checks all but the figures.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

from validation.gpu.modelopt_marlin import prepare

ROOT = Path(__file__).resolve().parents[2]
TINY = "tiny-gemma4"
BANDWIDTH = {"H200": 4800, "H100": 3350}  # GB/s; catalog/profiles has the sources
FIRST_PORT = 8420
LIMIT_S, USUAL_S = 60, 45  # of one sweep


@dataclass(frozen=True)
class BenchCase:
    """shape: of random_weights.py; None: the tiny checkpoint. drafter: the same, for 3 drafted tokens a step."""

    shape: str | None = None
    algo: str | None = None
    drafter: str | None = None
    bytes_of: str | None = None
    memory: float = 0.1


BIG = {"shape": "31b", "algo": "NVFP4", "bytes_of": "deckard-31b", "memory": 0.3}
# The most telling first: they are measured in this order.
CASES = {
    "31b-nvfp4": BenchCase(**BIG),  # type: ignore[arg-type]
    "31b-nvfp4-draft3": BenchCase(**BIG, drafter="e4b"),  # type: ignore[arg-type]
    "tiny": BenchCase(),
    "tiny-draft3": BenchCase(drafter=TINY),
}
CPU_CASES = {
    "small": BenchCase("small"),
    "tiny": BenchCase(),
    "small-draft3": BenchCase("small", drafter="small"),
}


@dataclass
class Server:
    """A server that may still be starting, or be dead."""

    name: str
    case: BenchCase
    model: Path
    port: int
    process: "subprocess.Popen[bytes]"
    started: float

    @property
    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def checkpoint(work: Path, shape: str | None, algo: str | None) -> Path:
    """The folder of a model, made if it is not there."""
    from validation.gpu import random_weights  # noqa: PLC0415  needs torch

    if shape in {None, TINY}:
        return ROOT / ".gpu" / "tiny"
    folder = work / f"{shape}-{algo}"
    if not folder.is_dir():
        random_weights.write_config(folder, shape, algo)
        random_weights.write_tokenizer(folder)
    return folder


def options(case: BenchCase, work: Path, *, cpu: bool) -> list[str]:
    chosen = ["--max-model-len", "1024", "--max-num-seqs", "16", "--max-num-batched-tokens", "2048"]
    if case.shape:
        chosen += ["--load-format", "dummy"]
    if cpu:
        chosen += ["--enforce-eager"]
    else:
        chosen += ["--kv-cache-memory-bytes", str(4 << 30), "--gpu-memory-utilization", str(case.memory)]
        chosen += ["--attention-backend", "TRITON_ATTN"]  # the bundle has no FlashAttention
    if case.drafter:
        draft = {"method": "draft_model", "model": str(checkpoint(work, case.drafter, case.algo))}
        chosen += [
            "--speculative-config",
            json.dumps(draft | {"num_speculative_tokens": 3, "max_model_len": 1024}),
        ]
    return chosen


@contextmanager
def started(name: str, place: tuple[Path, Path], port: int, python: str, *, cpu: bool) -> "Iterator[Server]":
    """A server of the case; in the end it is gone."""
    (work, out), case = place, (CPU_CASES if cpu else CASES)[name]
    model = checkpoint(work, case.shape, case.algo)
    argv = [python, "-m", "vllm.entrypoints.cli.main", "serve", str(model), "--served-model-name", name]
    argv += ["--host", "127.0.0.1", "--port", str(port), *options(case, work, cpu=cpu)]
    env = os.environ | {"VLLM_CACHE_ROOT": str(work / f"cache-{name}"), "CUDA_VISIBLE_DEVICES": "0"}
    with (out / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Server(name, case, model, port, process, time.monotonic())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(servers: list[Server], deadline: float) -> dict[str, dict[str, Any]]:
    """Until each answers or is dead, or the time is over: how long it took, or what went wrong."""
    found: dict[str, dict[str, Any]] = {}
    while len(found) < len(servers) and time.monotonic() < deadline:
        for server in servers:
            if server.name in found:
                continue
            if server.answers:
                found[server.name] = {"ready_s": round(time.monotonic() - server.started, 1)}
            elif server.process.poll() is not None:
                found[server.name] = {"error": f"the server ended with {server.process.returncode}"}
        time.sleep(0.5)
    late = {server.name for server in servers} - found.keys()
    return found | {name: {"error": "late"} for name in late}


def measure(server: Server, out: Path, python: str, machine: str | None, limit_s: float) -> dict[str, Any]:
    """The tool's own sweep."""
    argv = [
        sys.executable,
        str(ROOT / "scripts/bench_endpoint.py"),
        "--server",
        f"http://127.0.0.1:{server.port}",
    ]
    argv += [
        "--served-name",
        server.name,
        "--model",
        str(server.model),
        "--out",
        str(out / f"{server.name}.json"),
    ]
    argv += ["--python", python, "--concurrency", "1,4,16", "--runs", "3", "--requests", "1"]
    argv += [
        "--input-tokens",
        "128",
        "--output-tokens",
        "64",
        "--subject",
        json.dumps(subject(server.case, out, machine)),
    ]
    argv += ["--bandwidth-gb-s", str(BANDWIDTH[machine])] if machine else []
    argv += ["--bytes-of", server.case.bytes_of] if server.case.bytes_of else []
    with (out / f"{server.name}-bench.log").open("wb") as log:
        sweep = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            code = sweep.wait(limit_s)
        except subprocess.TimeoutExpired:
            sweep.kill()  # vllm bench serve notices that nobody waits
            sweep.wait()
            return {"error": f"no end within {limit_s:.0f} s"}
    return {} if code == 0 else {"error": f"bench ended with {code}"}


def subject(case: BenchCase, out: Path, machine: str | None) -> dict[str, Any]:
    drafting = {"method": "draft_model", "model": case.drafter, "tokens": 3} if case.drafter else None
    patches = json.loads((out / "patches.json").read_text())
    engine = {"engine": "vllm-0.19.1-host", "vllm_version": "0.19.1", "profile": machine and machine.lower()}
    return {**engine, "drafting": drafting, "patches": patches}


def graphics_card() -> str:
    with suppress(OSError):
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        return said.partition("\n")[0]
    return ""


def environment(work: Path, out: Path, *, cpu: bool) -> None:
    """Into our own environment, which servers and sweeps inherit."""
    from validation.gpu import random_weights  # noqa: PLC0415  needs torch

    patches: dict[str, str] = {}
    if not cpu:
        prepare(work)
        os.environ |= dict(line.split("=", 1) for line in (work / "environment").read_text().splitlines())
        made_of = (work / "overlay/made-of").read_text().splitlines()[1:]
        patches = dict(line.rsplit(" ", 1) for line in made_of)
    (out / "patches.json").write_text(json.dumps(patches))
    random_weights.write_plugin(work / "plugin")
    os.environ["PYTHONPATH"] = ":".join(
        filter(None, [str(work / "plugin"), str(ROOT), os.environ.get("PYTHONPATH")])
    )
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"} if cpu else {}


def run(work: Path, asked: argparse.Namespace, sink: IO[str]) -> None:
    out, cpu, deadline = asked.out, bool(asked.cpu), time.monotonic() + asked.seconds
    python, card = asked.cpu or sys.executable, graphics_card()
    environment(work, out, cpu=cpu)
    machine = next((name for name in BANDWIDTH if name in card), None)
    names = [name for name in (CPU_CASES if cpu else CASES) if not asked.only or name in asked.only]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(started(name, (work, out), FIRST_PORT + number, python, cpu=cpu))
            for number, name in enumerate(names)
        ]
        found = wait(servers, deadline - USUAL_S * len(servers))
        for server in servers:
            if server.answers:  # one that was late may have come meanwhile
                left = (
                    asked.sweep_seconds
                    if cpu
                    else min(asked.sweep_seconds, max(5.0, deadline - time.monotonic() - 5))
                )
                found[server.name] |= measure(server, out, python, machine, left)
            print(server.name, found[server.name], file=sink, flush=True)
            (out / "cases.json").write_text(json.dumps({"card": card, "cases": found}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=350)
    parser.add_argument("--sweep-seconds", type=float, default=LIMIT_S)
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE")
    parser.add_argument("--cpu", metavar="PYTHON", help="of vLLM's CPU build: check all but the figures")
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as work:
        run(Path(work), asked, sys.stdout)


if __name__ == "__main__":
    main()
