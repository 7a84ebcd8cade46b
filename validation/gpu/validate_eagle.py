"""Measure patches/vllm-0.19.1/eagle.patch on a GPU: what of its drafts is accepted, and whether the text stays right.

On a machine with a package index (and git, gcc, xz):   python -m validation.gpu.validate_eagle prepare WORKDIR
On an sm_90 machine with PyTorch, no network needed:    python -m validation.gpu.validate_eagle run --out DIR
`prepare` leaves .gpu/ to be taken along: site.tar.xz (vLLM 0.19.1 for sm_90) and eagle.py (the patched file).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from validation.gpu.cases import CASES, EAGLE, EXPERIMENTS, EngineCase

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ROOT / ".gpu"
PATCH = ROOT / "patches" / "vllm-0.19.1" / "eagle.patch"


def prepare(work: Path) -> None:
    if not (CARRIED / "site.tar.xz").is_file():
        subprocess.run([sys.executable, "-m", "validation.gpu.bundle", "0.19.1", work], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as scratch:
        member = f"./vllm/{EAGLE}"
        subprocess.run(["tar", "-xJf", CARRIED / "site.tar.xz", "-C", scratch, member], check=True)
        subprocess.run(["git", "apply", PATCH], cwd=scratch, check=True)
        shutil.copy(Path(scratch) / member, CARRIED / "eagle.py")


def environment(site: Path, overlay: Path | None) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in (overlay, site) if path),
        "LD_PRELOAD": str(site / "libmessage_logger_shim.so"),
        "LD_LIBRARY_PATH": f"{site}/nvidia/cuda_runtime/lib:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "2",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # spec_case.py watches the scheduler from its own process
        "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",  # between two GPUs, NCCL alone
    }


def overlay(site: Path, folder: Path, experiment: str) -> Path:
    """A tree of links to the site's vllm with the changed files in place: what a bind mount does."""
    folder.mkdir()
    subprocess.run(["cp", "-rs", site / "vllm", folder], check=True)
    texts = {EAGLE: (CARRIED / "eagle.py").read_text()}
    for file, old, new in EXPERIMENTS[experiment]:
        text = texts.get(file) or (site / "vllm" / file).read_text()
        assert text.count(old) == 1, f"{experiment}: not once in {file}: {old}"
        texts[file] = text.replace(old, new)
    for file, text in texts.items():
        (folder / "vllm" / file).unlink()
        (folder / "vllm" / file).write_text(text)
    return folder


def count_gpus() -> int:
    return len(
        subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines()
    )


def engine_settings(case: EngineCase, checkpoints: Path) -> dict[str, object]:
    settings: dict[str, object] = {"model": str(checkpoints / case.target), **case.engine}
    if case.drafter:
        settings["speculative_config"] = {
            "method": "draft_model",
            "model": str(checkpoints / case.drafter),
            "num_speculative_tokens": case.tokens,
        }
    return settings


def set_up(work: Path, out: Path) -> tuple[Path, Path]:
    """The site unpacked and the checkpoints written; returns where both are."""
    site, checkpoints = work / "site", work / "checkpoints"
    site.mkdir(parents=True)
    subprocess.run(["tar", "-xJf", CARRIED / "site.tar.xz", "-C", site], check=True)
    quiet = environment(site, None) | {"CUDA_VISIBLE_DEVICES": ""}
    with (out / "checkpoints.log").open("w") as log:
        argv = [sys.executable, "-m", "validation.gpu.checkpoints", str(checkpoints)]
        subprocess.run(argv, cwd=ROOT, env=quiet, stdout=log, stderr=log, check=True)
    return site, checkpoints


def run_program(
    name: str, job: dict[str, Any], folder: Path, env: dict[str, str], limit_s: float
) -> dict[str, Any]:
    """Run a program of this folder in a process of its own; return its result, or an error when there is none."""
    folder.mkdir(parents=True)
    spec, result = folder / "case.json", folder / "result.json"
    spec.write_text(json.dumps(job))
    with (folder / "log.txt").open("w") as log:
        argv = [sys.executable, "-m", f"validation.gpu.{name}", str(spec.resolve()), str(result.resolve())]
        try:
            subprocess.run(argv, cwd=ROOT, env=env, stdout=log, stderr=log, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"no end within {limit_s:.0f} s"}
    return dict(json.loads(result.read_text())) if result.is_file() else {"error": "the process died"}


def run_case(name: str, work: Path, overlays: dict[str, Path], gpu: int) -> dict[str, Any]:
    """`gpu`: the one to use, for a case that uses one."""
    case = CASES[name]
    folder = work / "cases" / name.replace(" ", "_").replace(":", "").replace(",", "")
    env = environment(work / "site", overlays.get(case.files)) | {"VLLM_CACHE_ROOT": str(folder / "cache")}
    if case.gpus == 1:
        env["CUDA_VISIBLE_DEVICES"] = str(gpu)
    started = time.monotonic()
    job = {"engine": engine_settings(case, work / "checkpoints"), "phases": case.phases}
    found = run_program("spec_case", job, folder, env, case.timeout_s)
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return found


def acceptance(phase: dict[str, Any]) -> str:
    """Accepted of drafted over all rounds, and over the rounds after each request's first."""
    shares = []
    for skipped in (0, 1):
        rounds = [turn for request in phase.get("rounds", []) for turn in request[skipped:]]
        drafted, accepted = (sum(turn[index] for turn in rounds) for index in (0, 1))
        shares.append(f"{accepted / drafted:.4f}" if drafted else "-")
    return shares[0] if shares[0] == shares[1] else f"{shares[0]} ({shares[1]})"


def same_text(tokens: list[list[int]], base: dict[str, Any]) -> str:
    """yes, or where the first difference is and how close the two best tokens were there without a drafter."""
    for request, (ours, theirs) in enumerate(zip(tokens, base["tokens"], strict=True)):
        if ours != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
            gap = base["gaps"][request][at] if at < len(base["gaps"][request]) else "-"
            return f"NO: request {request} token {at} of {len(theirs)}, gap {gap}"
    return "yes"


def rows(results: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| case | phase | acceptance (after the first round) | same text |", "| --- | --- | --- | --- |"]
    for name, result in results.items():
        if "error" in result:
            lines.append(f"| {name} | - | {result['error'][:200]} | - |")
            continue
        base = results.get(CASES[name].base or "", {}).get("phases")
        for phase, figures in result["phases"].items():
            text = same_text(figures["tokens"], base[phase]) if base else "-"
            lines.append(f"| {name} | {phase} | {acceptance(figures)} | {text} |")
    return lines


def run(out: Path, work: Path, names: list[str]) -> None:
    site, _ = set_up(work, out)
    wanted = {CASES[name].files for name in names} - {"stock"}
    overlays = {files: overlay(site, work / f"overlay {files}".replace(" ", "_"), files) for files in wanted}
    print(f"set up: {time.process_time():.0f} s of CPU; {len(names)} cases", flush=True)
    gpus = count_gpus()
    with ThreadPoolExecutor(16 * gpus) as pool:
        outcomes = pool.map(
            lambda at, name: run_case(name, work, overlays, at % gpus), range(len(names)), names
        )
        results = dict(zip(names, outcomes, strict=True))
    (out / "results.json").write_text(json.dumps(results))
    archive = out / "logs.tar.xz"
    subprocess.run(["tar", "-C", work, "--exclude=cache", "-cJf", archive, "cases"], check=True)
    table = "\n".join(rows(results))
    (out / "table.md").write_text(table + "\n")
    print(table)
    for name, result in results.items():
        if "groups" in result:
            blocks = sorted(set(map(tuple, result["groups"])))
            print(
                f"{name}: (block size, draft layers) of the groups {blocks}",
                result["modes"],
                result["preemptions"],
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare").add_argument("work", type=Path)
    runner = verbs.add_parser("run")
    runner.add_argument("--out", type=Path, required=True)
    runner.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "validate_eagle")
    runner.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    args = parser.parse_args()
    if args.verb == "prepare":
        prepare(args.work.resolve())
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        run(args.out, args.work.resolve(), args.only)


if __name__ == "__main__":
    main()
