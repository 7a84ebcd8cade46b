"""Time engines of one release in turn on one GPU, in the 31B's shapes: formats, drafted tokens, linear backends.

The engines start at the same time, each in a process of its own. When all are ready, each point is asked of each
engine in turn, now in this order, now in the other, so that the machine's state falls on all alike. The assistant is
always right, and so every engine of one format has to write the same text. On an sm_90 machine with PyTorch, from the
repository's root, with an archive of bundle.py unpacked in SITE:

    python3 -m validation.gpu.validate_turns run CASE... --site SITE --out DIR [--seconds 530] [--points 1x1024 ...]
Then, where deckard_deploy runs (`run` prints it too):
    python -m validation.gpu.validate_turns table DIR/turns.json

CASE is FORMAT:TOKENS or FORMAT:TOKENS:LINEAR_BACKEND, for example NVFP4_AWQ:4:marlin; the first one is what the others
are compared with. Without a GPU, by a Python that has vLLM's CPU build: `run --cpu` checks all but the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from statistics import median
from typing import Any

from deckard_deploy.patching import plugin

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 128
# Requests and tokens of context. 16 requests of 1,024 tokens need 15 GiB of KV cache, of 16,384 tokens 36 GiB.
POINTS = ("1x128", "4x128", "16x128", "1x1024", "4x1024", "1x16384", "4x16384")
CPU_POINTS = ("1x32", "2x64")
GPU_GIB = 139  # of an H200
ENGINE_GIB = 25  # seen: 18.4 of weights, 0.9 of the assistant; graphs, activations and CUDA's own 3 to 5
READY_SHARE = 0.75  # of the time, after which engines that are not ready are left out


def parse_case(text: str) -> dict[str, Any]:
    algo, tokens, *backend = text.split(":")
    return {
        "algo": None if algo == "BF16" else algo,
        "tokens": int(tokens),
        "backend": backend[0] if backend else None,
    }


def engine_settings(
    case: dict[str, Any], points: Sequence[str], engines: int, *, cpu: bool
) -> dict[str, Any]:
    requests, contexts = zip(*(map(int, point.split("x")) for point in points), strict=True)
    common = {"max_model_len": max(contexts) + TOKENS + 64, "max_num_seqs": max(requests)}
    if cpu:
        return {**common, "enforce_eager": True}
    sizes = sorted({batch * (1 + drafts) for batch in requests for drafts in {0, case["tokens"]}})
    return {
        **common,
        "max_num_batched_tokens": 8192,
        "gpu_memory_utilization": round(
            0.85 / engines, 2
        ),  # what has to be free; the cache is given by bytes
        "kv_cache_memory_bytes": (GPU_GIB // engines - ENGINE_GIB) << 30,
        # The sizes of the batches; capturing all sizes takes minutes.
        "compilation_config": {"cudagraph_capture_sizes": sizes},
    }


def environment(site: Path | None, work: Path, name: str = plugin.NAME) -> dict[str, str]:
    """Return the environment of an engine with plugin `name`. site: None: of the CPU build that this Python has."""
    wheel = plugin.build(name, work / name / plugin.WHEEL)
    paths = [str(wheel), str(ROOT), str(site) if site else "", os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "2"}
    # In-process, so that the assistant can be made right; FlashInfer is not carried.
    env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    env |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if site is None:
        env |= {"TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return env


def launch(
    case: dict[str, Any], folder: Path, env: dict[str, str]
) -> tuple[subprocess.Popen[bytes], Connection]:
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps(case))
    ours, theirs = Pipe()
    argv = [sys.executable, "-m", "validation.gpu.turn_case", str(theirs.fileno()), str(folder / "case.json")]
    own = env | {"VLLM_CACHE_ROOT": str(folder / "cache")}
    with (folder / "log.txt").open("w") as log, theirs:  # closed here, so that its end is noticed
        process = subprocess.Popen(
            argv, cwd=ROOT, env=own, stdout=log, stderr=log, pass_fds=[theirs.fileno()]
        )
    return process, ours


def await_engines(engines: dict[str, Connection], deadline: float) -> dict[str, dict[str, Any]]:
    """Return what each engine said of its start; an engine that is not ready in time or died said nothing."""
    names = {connection: name for name, connection in engines.items()}
    said = {}
    while names and (left := deadline - time.monotonic()) > 0:
        for connection in wait(list(names), timeout=left):
            assert isinstance(connection, Connection)
            name = names.pop(connection)
            try:
                said[name] = connection.recv()
            except EOFError:
                continue
            print(name, said[name], flush=True)
    return said


def take_turns(
    engines: dict[str, Connection], points: Sequence[str], deadline: float, found: dict[str, Any], file: Path
) -> None:
    """Measure every point on every engine until the time is over; write what is known after each turn."""
    turn, longest = 0, 0.0
    while time.monotonic() + longest < deadline:
        started = time.monotonic()
        for point in points:
            requests, context = map(int, point.split("x"))
            for name in list(engines)[:: -1 if turn % 2 else 1]:
                engines[name].send((requests, context, found["tokens"]))
                if not engines[name].poll(max(1.0, deadline - time.monotonic())):
                    return
                result = engines[name].recv()
                if turn:  # the first turn fills the prefix cache and warms up
                    found["cases"][name]["points"].setdefault(point, []).append(result)
        longest = max(longest, time.monotonic() - started) if turn else 0.0
        turn += 1
        found["turns"] = turn - 1
        file.write_text(json.dumps(found, indent=1))
        print(f"turn {turn - 1}: {time.monotonic() - started:.0f} s", flush=True)


def run(args: argparse.Namespace, work: Path) -> None:
    deadline = time.monotonic() + args.seconds
    points = args.points or (CPU_POINTS if args.cpu else POINTS)
    env = environment(None if args.cpu else args.site, work)
    found: dict[str, Any] = {"tokens": args.tokens, "cases": {name: {"points": {}} for name in args.cases}}
    processes: list[subprocess.Popen[bytes]] = []
    engines: dict[str, Connection] = {}
    try:
        for name in args.cases:
            case = parse_case(name) | {"shape": "small" if args.cpu else "31b"}
            case["engine"] = engine_settings(case, points, len(args.cases), cpu=args.cpu)
            process, engines[name] = launch(case, work / str(len(processes)), env)
            processes.append(process)
        said = await_engines(engines, time.monotonic() + args.seconds * READY_SHARE)
        for name, result in found["cases"].items():
            result.update(said.get(name, {"error": "not ready in time, or it died: see its log"}))
        (args.out / "turns.json").write_text(json.dumps(found, indent=1))
        ready = {name: engines[name] for name, result in found["cases"].items() if "error" not in result}
        if ready:
            take_turns(ready, points, deadline, found, args.out / "turns.json")
    finally:
        for number, process in enumerate(processes):
            process.kill()
            process.wait()
            log = (work / str(number) / "log.txt").read_text(errors="replace")
            (args.out / f"engine-{number}.log").write_text(log)


def cell_of_speed(rates: list[float]) -> str:
    return f"{median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"


def ratio_of(base: list[float], other: list[float]) -> str:
    from deckard_deploy.measuring.comparison import compare_pairs  # noqa: PLC0415  not needed by `run`

    if len(base) < 2 or len(base) != len(other):
        return "-"
    row = compare_pairs({1: base}, {1: other}).rows[1]
    return f"{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})"


def table(file: Path) -> None:
    """Print each case at each point, against the first case; intervals of 99 %, by pairs of the same turn."""
    from deckard_deploy.catalog import library  # noqa: PLC0415  not needed by `run`
    from deckard_deploy.planning.roofline import kv_bytes_read, weight_bytes_read  # noqa: PLC0415  same

    found = json.loads(file.read_text())
    target = library.model("deckard-31b")
    bandwidth = library.profile("h200").hardware.bandwidth_gb_s or 0
    cases = found["cases"]
    base = next(iter(cases.values()))["points"]
    for name, case in cases.items():
        gpu, runner = case.get("gpu"), case.get("runner")
        print(f"{name}: " + case.get("error", f"{gpu}, {runner}, ready after {case.get('ready_s', 0):.0f} s"))
    print(f"{found.get('turns', 0)} turns\n")
    print(
        "| case | requests | context | tok/s (of the turns) | of the roofline | against the first | accepted | text |"
    )
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |")
    for name, case in cases.items():
        algo = name.split(":")[0]
        model = target.model_copy(update={"quantization": "none" if algo == "BF16" else "nvfp4"})
        for point, runs in case["points"].items():
            requests, context = map(int, point.split("x"))
            rates = [each["tok_s"] for each in runs]
            read = weight_bytes_read(model) + requests * kv_bytes_read(
                model.architecture, 2, context + found["tokens"] // 2
            )
            share = median(rates) / (requests * bandwidth * 1e9 / read)
            drafted = sum(each["drafted"] for each in runs)
            accepted = f"{sum(each['accepted'] for each in runs) / drafted:.4f}" if drafted else ""
            before = base.get(point, [])
            same = {each["text"] for each in runs} == {each["text"] for each in before}
            against = "" if before is runs else ratio_of([each["tok_s"] for each in before], rates)
            print(
                f"| {name} | {requests} | {context} | {cell_of_speed(rates)} | {share:.0%} | {against} | "
                f"{accepted} | {'the same' if same else 'differs'} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("cases", nargs="+", metavar="CASE")
    runner.add_argument("--site", type=Path, help="the unpacked archive of bundle.py")
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument("--seconds", type=float, default=530)
    runner.add_argument("--points", nargs="+", metavar="REQUESTSxCONTEXT")
    runner.add_argument("--tokens", type=int, default=TOKENS, help="of each request, after the first one")
    runner.add_argument("--cpu", action="store_true", help="check all but the figures")
    verbs.add_parser("table").add_argument("file", type=Path)
    args = parser.parse_args()
    if args.verb == "table":
        table(args.file)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        run(args, Path(work))
        # In a process with the engine's packages, which the tool's catalog needs too.
        env = environment(None if args.cpu else args.site, Path(work))
        argv = [
            sys.executable,
            "-m",
            "validation.gpu.validate_turns",
            "table",
            str(args.out.resolve() / "turns.json"),
        ]
        subprocess.run(argv, cwd=ROOT, env=env, check=True)


if __name__ == "__main__":
    main()
