"""Run cases of cases.py again and again, several engines at a time on one GPU, and say what was ever wrong.

On an sm_90 machine with PyTorch and what `validate_eagle prepare` leaves in .gpu/, from the repository's root:

    python3 -m validation.gpu.validate_repeat --out DIR --seconds 150 "to 4080, k=5*6" \\
        "control: to 4080, counts in place*3"

All engines must repeat the text of the case without a drafter. They share the GPU so that each one's work waits for
the others': what is right only on a GPU that is never late shows itself.
"""

import argparse
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from validation.gpu.cases import CASES
from validation.gpu.validate_eagle import engine_settings, environment, overlay, run_program, set_up


def run(out: Path, work: Path, names: list[str], seconds: float, gpu: int) -> None:
    site, checkpoints = set_up(work, out)
    files = {CASES[name].files for name in names} - {"stock"}
    overlays = {kind: overlay(site, Path(tempfile.mkdtemp(dir=work)) / "tree", kind) for kind in files}
    (base,) = {CASES[name].base or "" for name in names}

    def start(at: int, name: str, length: float, expected: dict[str, Any] | None = None) -> dict[str, Any]:
        case = CASES[name]
        folder = work / "engines" / str(at)
        env = environment(site, overlays.get(case.files)) | {"VLLM_CACHE_ROOT": str(folder / "cache")}
        engine = engine_settings(case, checkpoints)
        job = {"engine": engine, "phases": case.phases, "seconds": length, "expected": expected}
        return run_program("repeat_case", job, folder, env | {"CUDA_VISIBLE_DEVICES": str(gpu)}, length + 120)

    expected = start(-1, base, 1)["tokens"]
    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(lambda at, name: start(at, name, seconds, expected), range(len(names)), names))
    results = [{"case": name, **each} for name, each in zip(names, found, strict=True)]
    print("| case | phases | with wrong text | passes with wrong positions |\n| --- | --- | --- | --- |")
    for each in results:
        each.pop("tokens", None)
        figures = each.get("error") or f"{each['phases']} | {len(each['wrong'])} | {len(each['off'])}"
        print(f"| {each['case']} | {figures} |")
    (out / "repeat.json").write_text(json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "validate_repeat")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("cases", nargs="+", metavar="CASE[*COUNT]")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [case.partition("*") for case in args.cases]
    names = [name for name, _, count in parts for _ in range(int(count or 1))]
    run(args.out, args.work, names, args.seconds, args.gpu)


if __name__ == "__main__":
    main()
