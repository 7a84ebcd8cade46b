"""The cost of `pre_quant_scale`: NVFP4 and NVFP4_AWQ in the 31B's shapes, measured in turn on one GPU.

On an sm_90 machine with PyTorch and .gpu/site.tar.xz (see bundle.py), from the repository's root:

    python3 -m validation.gpu.validate_pair run --out DIR [--seconds 560]
Then, where deckard_deploy runs:
    python -m validation.gpu.validate_pair table DIR/pair.json
Without a GPU, by a Python that has vLLM's CPU build: `run --cpu` checks all but the figures.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from validation.gpu.modelopt_marlin import prepare
from validation.gpu.validate_eagle import ROOT, run_program

BASE, OTHER = "NVFP4", "NVFP4_AWQ"
# Both get their KV cache by bytes; the share is the memory that the second one must find free.
ON_GPU: dict[str, Any] = {"draft_tokens": 0, "kv_gib": 4, "engine": {"gpu_memory_utilization": 0.4}}
ON_CPU: dict[str, Any] = {"draft_tokens": 0, "kv_gib": 1, "shape": "small", "engine": {"enforce_eager": True}}
TO_START_S = 360  # two engines, one after the other, with nothing compiled yet: 150 s each were seen


def run(out: Path, work: Path, seconds: float, *, cpu: bool) -> None:
    deadline = time.monotonic() + seconds
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    env |= {"VLLM_CACHE_ROOT": str(work / "cache"), "VLLM_LOGGING_LEVEL": "INFO"}
    if cpu:
        env |= {"PYTHONPATH": "", "TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    else:
        prepare(work)
        env |= dict(line.split("=", 1) for line in (work / "environment").read_text().splitlines())
    # Each engine is a process of its own, and a plugin is what comes to all of them.
    from validation.gpu import random_weights  # noqa: PLC0415  needs torch

    random_weights.write_plugin(work / "plugin")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(work / "plugin"), str(ROOT), env["PYTHONPATH"])))
    case, algos = (ON_CPU, (None, None)) if cpu else (ON_GPU, (BASE, OTHER))
    cases = {name: case | {"algo": algo} for name, algo in zip((BASE, OTHER), algos, strict=True)}
    left = deadline - time.monotonic()
    job = {"cases": cases, "seconds": 90 if cpu else left - TO_START_S}
    found = run_program("pair_case", job, work / "case", env, left)
    (out / "pair.json").write_text(json.dumps(found, indent=1))
    (out / "pair.log").write_text((work / "case" / "log.txt").read_text(errors="replace"))
    print(found.get("error") or found["gpu"])


def table(file: Path) -> None:
    from deckard_deploy.measuring.comparison import compare_pairs  # noqa: PLC0415  not on the GPU machine

    found = json.loads(file.read_text())["tok_s"]
    base, other = ({int(batch): names[name] for batch, names in found.items()} for name in (BASE, OTHER))
    ratio = compare_pairs(base, other)
    print(f"| requests | pairs | {BASE}, tok/s | {OTHER}, tok/s | ratio | interval |")
    print("| ---: | ---: | ---: | ---: | ---: | --- |")
    for batch, row in ratio.rows.items():
        medians = f"{median(base[batch]):.1f} | {median(other[batch]):.1f}"
        print(
            f"| {batch} | {len(base[batch])} | {medians} | {row.ratio:.3f} | {row.low:.3f} to {row.high:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument("--seconds", type=float, default=560)
    runner.add_argument("--cpu", action="store_true", help="check all but the figures")
    verbs.add_parser("table").add_argument("file", type=Path)
    args = parser.parse_args()
    if args.verb == "table":
        table(args.file)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        run(args.out, Path(work), args.seconds, cpu=args.cpu)


if __name__ == "__main__":
    main()
