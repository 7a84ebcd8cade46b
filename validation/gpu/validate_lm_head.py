"""Measure the plugin's quantized lm_head in the 31B's shapes: speed, distance of log-probabilities, memory.

One engine of vLLM 0.32.0 or 0.33.0 with random NVFP4_AWQ weights holds three heads: BF16 (the embedding's table), FP8
and NVFP4. Each point is asked with each head in turn. The distance is of log-probabilities of the same hidden states,
next to BF16's own rounding: against float32, and one state at a time. The engine starts with the first format of
`--load` that loads. On an sm_90 machine with PyTorch, from the repository's root, with an archive of bundle.py unpacked
in SITE:

    python3 -m validation.gpu.validate_lm_head run --site SITE --out DIR [--seconds 250]
Then, where deckard_deploy runs (`run` prints it too):
    python -m validation.gpu.validate_lm_head table DIR/lm_head.json

Without a GPU, by a Python that has vLLM's CPU build: `run --cpu` checks all but the figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from deckard_deploy.catalog.specs import LM_HEAD_NAMES
from validation.gpu.validate_turns import ROOT, cell_of_speed, engine_settings, environment, ratio_of

POINTS = ("1x128", "4x128", "16x128")
CPU_POINTS = ("1x8", "2x8")
TOKENS = 64
END_S = 8  # of the time: for the table, and to end the engine


def run(args: argparse.Namespace, work: Path) -> dict[str, str]:
    """Run the case with the first format that loads. Return the environment of its engine."""
    deadline = time.time() + args.seconds - END_S
    points = CPU_POINTS if args.cpu else POINTS
    for form in args.load:
        name = LM_HEAD_NAMES[form]
        folder = work / form
        env = environment(None if args.cpu else args.site, work, name)
        settings = engine_settings({"tokens": 0}, points, 1, cpu=args.cpu)
        if not args.cpu:
            settings["kv_cache_memory_bytes"] = 40 << 30  # 16 requests of 320 tokens need a small part of it
        shape = "small" if args.cpu else "31b"
        case: dict[str, Any] = {"algo": "NVFP4_AWQ", "shape": shape, "tokens": 0, "backend": None}
        case |= {"engine": settings, "loaded": form, "new_tokens": args.tokens, "points": points}
        case["deadline"] = deadline
        folder.mkdir()
        (folder / "case.json").write_text(json.dumps(case))
        result = args.out / "lm_head.json"
        result.unlink(missing_ok=True)
        run_engine(folder, env, result, args.out / f"engine-{form}.log", deadline)
        found = json.loads(result.read_text()) if result.exists() else {"error": "not ready in time"}
        print(f"loaded with {form}: {found.get('error', 'yes')}", flush=True)
        if "error" not in found:
            return env
    raise SystemExit("no format loaded: see the logs")


def run_engine(folder: Path, env: dict[str, str], result: Path, log: Path, deadline: float) -> None:
    """Run the case until it ends by itself or the time is over."""
    argv = [
        sys.executable,
        "-m",
        "validation.gpu.lm_head_case",
        str(folder / "case.json"),
        str(result.resolve()),
    ]
    own = env | {"VLLM_CACHE_ROOT": str(folder / "cache")}
    with log.open("w") as output:
        process = subprocess.Popen(argv, cwd=ROOT, env=own, stdout=output, stderr=output)
        try:
            process.wait(timeout=max(1.0, deadline + END_S / 2 - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def table(file: Path) -> None:
    """Print speed against BF16 by pairs of one turn (intervals of 99 %), the distances, and the memory."""
    found: dict[str, Any] = json.loads(file.read_text())
    print(
        f"{found['gpu']}, {found['runner']}, loaded with {found['loaded']}, ready after {found['ready_s']:.0f} s"
    )
    print(f"{found['turns']} turns of {found['tokens']} tokens\n")
    for form, error in found["errors"].items():
        print(f"{form}: {error}")
    heads = found["heads"]
    print(
        "| lm_head | requests | tok/s (of the turns) | against BF16 | text |\n| --- | ---: | ---: | --- | --- |"
    )
    for form, head in heads.items():
        for point, runs in head["points"].items():
            base = heads["none"]["points"][point]
            rates = [each["tok_s"] for each in runs]
            against = "" if form == "none" else ratio_of([each["tok_s"] for each in base], rates)
            same = {each["text"] for each in runs} == {each["text"] for each in base}
            requests = point.split("x")[0]
            said = "the same" if same else "differs"
            print(f"| {form} | {requests} | {cell_of_speed(rates)} | {against} | {said} |")
    print(
        "\n| lm_head | kernel | memory of its own | one call at "
        + ", ".join(heads["none"]["seconds"])
        + " states |"
    )
    print("| --- | --- | ---: | ---: |")
    for form, head in heads.items():
        times = ", ".join(f"{seconds * 1e6:.0f}" for seconds in head["seconds"].values())
        print(f"| {form} | {head['kernel']} | {head['bytes'] / 2**30:.3f} GiB | {times} us |")
    print("\n| against BF16 | logits | KL mean | KL max | top 10 mean | top 10 max | another token first |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, off in found["distances"].items():
        figures = [off[key] for key in ("logits", "kl_mean", "kl_max", "top_mean", "top_max")]
        cells = " | ".join(f"{figure:.2g}" for figure in figures)
        print(f"| {name} | {cells} | {off['other_first']:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run")
    runner.add_argument("--site", type=Path, help="the unpacked archive of bundle.py")
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument("--seconds", type=float, default=250)
    runner.add_argument("--tokens", type=int, default=TOKENS, help="of each request, after the first one")
    runner.add_argument("--load", nargs="+", default=["nvfp4", "fp8"], choices=sorted(LM_HEAD_NAMES))
    runner.add_argument("--cpu", action="store_true", help="check all but the figures")
    verbs.add_parser("table").add_argument("file", type=Path)
    args = parser.parse_args()
    if args.verb == "table":
        table(args.file)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        env = run(args, Path(work))
        # In a process with the engine's packages, which the tool's catalog needs too.
        file = str(args.out.resolve() / "lm_head.json")
        argv = [sys.executable, "-m", "validation.gpu.validate_lm_head", "table", file]
        subprocess.run(argv, cwd=ROOT, env=env, check=True)


if __name__ == "__main__":
    main()
