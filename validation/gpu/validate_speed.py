"""Time decoding in the real 31B shapes with the patches on, without a drafter and with one, one engine at a time a GPU.

On an sm_90 machine with PyTorch and .gpu/site.tar.xz (see bundle.py), from the repository's root:

    python3 -m validation.gpu.validate_speed run --out DIR [--seconds 560]
Then, where deckard_deploy runs, the table: the roofline is planning/roofline.py's own.
    python -m validation.gpu.validate_speed table DIR/speed.json     (or the folder of mtp.sh)
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from validation.gpu.modelopt_marlin import prepare
from validation.gpu.validate_eagle import count_gpus, run_program

# The most telling first; a GPU takes the next one when it is free.
CASES: dict[str, dict[str, Any]] = {
    "NVFP4": {"algo": "NVFP4", "draft_tokens": 0, "kv_gib": 8},
    "BF16": {"algo": None, "draft_tokens": 0, "kv_gib": 5},
    "NVFP4_AWQ": {"algo": "NVFP4_AWQ", "draft_tokens": 0, "kv_gib": 8},
    "NVFP4, k=5": {"algo": "NVFP4", "draft_tokens": 5, "kv_gib": 8},
    "NVFP4, k=3": {"algo": "NVFP4", "draft_tokens": 3, "kv_gib": 8},
    "NVFP4, k=1": {"algo": "NVFP4", "draft_tokens": 1, "kv_gib": 8},
    "NVFP4, k=3, drafter without CUDA graphs": {
        "algo": "NVFP4",
        "draft_tokens": 3,
        "kv_gib": 8,
        "speculative": {"enforce_eager": True},
    },
    "BF16, k=3": {"algo": None, "draft_tokens": 3, "kv_gib": 5},
    "BF16, k=1": {"algo": None, "draft_tokens": 1, "kv_gib": 5},
    "BF16, k=5": {"algo": None, "draft_tokens": 5, "kv_gib": 5},
}


def run_case(name: str, case: dict[str, Any], work: Path, gpu: int, limit_s: float) -> dict[str, Any]:
    folder = work / "cases" / name.replace(" ", "_").replace(",", "")
    variables = dict(line.split("=", 1) for line in (work / "environment").read_text().splitlines())
    env = os.environ | variables
    env |= {"CUDA_VISIBLE_DEVICES": str(gpu), "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
    env |= {
        "VLLM_CACHE_ROOT": str(work / f"cache{gpu}"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "INFO",
    }
    started = time.monotonic()
    found = run_program("speed_case", case, folder, env, limit_s)
    print(f"{name}: {time.monotonic() - started:.0f} s, {found.get('error') or found['decode']}", flush=True)
    return found


def run(out: Path, work: Path, seconds: float, names: list[str], gpus: list[int]) -> None:
    deadline = time.monotonic() + seconds
    prepare(work)
    left, results = list(names), {}

    def on(gpu: int) -> None:
        while left and (time_left := deadline - time.monotonic()) > 60:  # none shorter was seen
            name = left.pop(0)
            results[name] = run_case(name, CASES[name], work, gpu, time_left - 5)
            (out / "speed.json").write_text(json.dumps(results, indent=1))

    with ThreadPoolExecutor(len(gpus)) as pool:
        list(pool.map(on, gpus))
    subprocess.run(["tar", "-C", work, "-cJf", out / "speed-logs.tar.xz", "cases"], check=True)


def results_of(path: Path) -> dict[str, Any]:
    """Return the results of `run`, or of the folder of mtp.sh, under the same names."""
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    files = {file.stem.removeprefix("speed-"): file for file in sorted(path.glob("speed-*.json"))}
    named = {name.replace("-0", "").replace("-", ", k="): file for name, file in files.items()}
    return {name: json.loads(file.read_text()) for name, file in named.items()}


def table(path: Path) -> None:
    """Tokens a second, share of the ceiling, and the speed-up against tau / (1 + c k) with c from bytes alone."""
    from deckard_deploy.catalog import library  # noqa: PLC0415  not on the GPU machine
    from deckard_deploy.planning.roofline import drafting, kv_bytes_read, weight_bytes_read  # noqa: PLC0415  same

    target = library.model("deckard-31b")
    drafter = library.model("deckard-e4b" if path.is_file() else "gemma-4-31b-assistant")
    results = results_of(path)
    gpu = next(found["gpu"] for found in results.values() if "gpu" in found)
    bandwidth = library.profile("h200" if "H200" in gpu else "h100").hardware.bandwidth_gb_s or 0
    print("| case | requests | tok/s (each run) | of the ceiling | acceptance | speed-up | formula |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, result in results.items():
        if "error" in result:
            print(f"| {name} | - | {result['error'][:120]} | | | | |")
            continue
        base_name, _, rest = name.partition(", k=")
        tokens = int(rest[0]) if rest else 0
        model = target.model_copy(update={"quantization": "none"}) if base_name == "BF16" else target
        draft = drafting(model, drafter)
        assert draft  # the catalog says how each of them drafts
        formula = draft.speedup(1.0, tokens)
        for batch, found in result["decode"].items():
            step = weight_bytes_read(model) + int(batch) * kv_bytes_read(model.architecture, 2, 192)
            ceiling = formula * int(batch) * bandwidth * 1e9 / step
            runs = ", ".join(f"{rate:.1f}" for rate in found["tok_s"])
            drafted = " | | "
            if tokens:
                base = results.get(base_name, {}).get("decode", {}).get(batch)
                speedup = f"{found['median'] / base['median']:.2f}" if base else "-"
                drafted = f"{found['acceptance']:.4f} | {speedup} | {formula:.2f}"
            print(
                f"| {name} | {batch} | {found['median']:.1f} ({runs}) | {found['median'] / ceiling:.0%} | {drafted} |"
            )
    taken_apart = {name: result for name, result in results.items() if "breakdown" in result}
    if taken_apart:
        print(
            "\n| case | ready after, s | step, ms | model | sampling | drafting | rest |\n"
            + "| --- " * 7
            + "|"
        )
    for name, result in taken_apart.items():
        parts = result["breakdown"]
        named = [parts.get(key, 0.0) for key in ("_model_forward", "_sample", "propose_draft_token_ids")]
        cells = " | ".join(f"{ms:.2f}" for ms in (parts["step_ms"], *named, parts["step_ms"] - sum(named)))
        print(f"| {name} | {result['ready_s']:.0f} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "validate_speed")
    runner.add_argument("--seconds", type=float, default=560)
    runner.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    runner.add_argument("--gpus", nargs="+", type=int, metavar="NUMBER", help="all, if not said")
    verbs.add_parser("table").add_argument("file", type=Path)
    args = parser.parse_args()
    if args.verb == "table":
        table(args.file)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        run(args.out, args.work, args.seconds, args.only, args.gpus or list(range(count_gpus())))


if __name__ == "__main__":
    main()
