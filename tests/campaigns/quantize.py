"""Quantize tiny models with the real ModelOpt on a CPU, serve the results with the real engine, and kill runs.

    serve   recipe nvfp4 on a dense model and on one with per-layer embeddings, then `up` and a chat with each
    kill    `quantize`, killed with its whole process group at moments that are spread over a run: no folder may be
            left that `up` would take, and the next run must write a right one and clear what the killed one left

    search  awq-lite, awq-full and svdquant on a CPU, PyTorch in place of ModelOpt's CUDA kernel (fp4_on_cpu.py): the
            exported files must stand for the source's weights

Everything happens in a temporary folder. The environments (ModelOpt: 1.6 GB, an engine) are those in
DECKARD_TEST_ENGINES, or are installed. Exit status 1 on a violation.

    python -m tests.campaigns.quantize serve
    python -m tests.campaigns.quantize kill --kills 10
    python -m tests.campaigns.quantize search
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from deckard_deploy.catalog import library
from deckard_deploy.errors import DeployError
from deckard_deploy.operations.inspect import inspect_checkpoint
from deckard_deploy.operations.quantize import LARGEST_ERROR
from deckard_deploy.quantizing import worker
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.rehearsal.layers import FormName
from deckard_deploy.running.process import environment
from deckard_deploy.running.process.locks import QUANTIZERS
from tests.support.ports import free_port

ENGINE, MODELOPT = "vllm-0.32.0-cpu", "modelopt-0.47.0-cpu"
FORMS: tuple[FormName, ...] = ("dense", "per-layer")


def main() -> int:
    """Parse, run, print the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("serve", "kill", "search"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        folder = Path(name)
        state = folder / "state"
        state.mkdir(mode=0o700)
        if shared := os.environ.get("DECKARD_TEST_ENGINES"):
            (state / "engines").symlink_to(shared)
        if options.what == "serve":
            violations = list(_serve(folder, state))
        elif options.what == "search":
            violations = list(_search(folder, state))
        else:
            violations = list(_kill(folder, state, options.kills, random.Random(options.seed)))
    for violation in violations:
        print(violation)
    print(f"{options.what}: {len(violations)} violations")
    return 1 if violations else 0


def _serve(folder: Path, state: Path) -> Iterator[str]:
    for form in FORMS:
        source, new = gemma4.write(folder / f"tiny-{form}", form=form), folder / f"new-{form}"
        began = time.monotonic()
        done = _tool(state, *_quantize(source, new))
        if done.returncode:
            yield f"{form}: quantize: {done.stderr}"
            continue
        report = json.loads((new / "quantization-report.json").read_text())
        errors = report["relative_error_of_weights"].values()
        print(
            f"{form}: {time.monotonic() - began:.0f} s, {len(errors)} linears, errors up to {max(errors):.4f}",
            end=" ",
        )
        print(report["seconds"], report["bytes"], report["nan_scales"])
        port = str(free_port())
        up = _tool(state, "up", "--profile", "cpu", "--engine", ENGINE, "--model", str(new), "--port", port)
        answer = _tool(state, "chat", "Hello")
        _tool(state, "down")
        print(f"{form}: {answer.stdout.strip()}")
        if "Hello, this is a rehearsal." not in answer.stdout:
            yield f"{form}: {up.stderr}{answer.stderr}"


def _search(folder: Path, state: Path) -> Iterator[str]:
    lock = QUANTIZERS[MODELOPT]
    python = environment.install(state / "engines" / MODELOPT, lock=lock, say=print).python
    source, texts = gemma4.write(folder / "tiny"), folder / "texts.jsonl"
    texts.write_text(json.dumps({"text": "Hello there"}) + "\n")
    for name in ("awq-lite", "awq-full", "svdquant"):
        job = folder / f"{name}.json"
        job.write_text(
            json.dumps(
                {
                    "source": str(source),
                    "export": str(folder / name),
                    "texts": str(texts),
                    "recipe": library.recipe(name).model_dump(mode="json"),
                    "device": "cpu",
                }
            )
        )
        shim = Path(__file__).with_name("fp4_on_cpu.py")
        with subprocess.Popen(
            [python, "-I", shim, worker.INSIDE, job], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            lines = [line for line in process.stdout or () if line.startswith('{"')]
        result = json.loads(lines[-1]).get("result") if lines else None
        if result is None:
            yield f"{name}: exit code {process.returncode}"
            continue
        passes = {line.partition("pass ")[2][:6] for line in lines if '"phase": "calibrate"' in line}
        errors = result["errors"]
        worst = max(errors.values())
        print(
            f"{name}: {len(errors)} linears, errors {min(errors.values()):.4f} to {worst:.4f}, passes {sorted(passes)}"
        )
        if not worst < LARGEST_ERROR:
            yield f"{name}: an error of {worst}"


def _kill(folder: Path, state: Path, kills: int, rng: random.Random) -> Iterator[str]:
    source, new = gemma4.write(folder / "tiny"), folder / "new"
    began = time.monotonic()
    if (done := _tool(state, *_quantize(source, new))).returncode:
        yield done.stderr
        return
    whole = time.monotonic() - began
    completed = 0
    for number in range(kills):
        _remove(new)
        moment = whole * (number + rng.random()) / kills
        with subprocess.Popen(
            [sys.executable, "-m", "deckard_deploy", *_quantize(source, new)],
            env={**os.environ, "DECKARD_HOME": str(state)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            time.sleep(moment)
            # Every second time the tool alone, whose worker has to notice.
            if number % 2 or process.poll() is not None:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        left = [path.name for path in folder.iterdir() if path.name.startswith(".tmp-")]
        print(f"kill {number} after {moment:.1f} of {whole:.1f} s: left {left}, {new.name} {new.exists()}")
        if new.exists():
            completed += 1
            yield from (f"kill {number}: {fault}" for fault in _faults(new, state))
    _remove(new)
    if (done := _tool(state, *_quantize(source, new))).returncode:
        yield f"after the kills: {done.stderr}"
    yield from _faults(new, state)
    left = [path.name for path in folder.iterdir() if path.name.startswith(".tmp-")]
    if left:
        yield f"left over: {left}"
    print(f"{completed} of {kills} had written their folder before the kill")


def _quantize(source: Path, new: Path) -> tuple[str, ...]:
    return ("quantize", str(source), "--recipe", "nvfp4", "--calibrate", "builtin", "-o", str(new))


def _tool(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deckard_deploy", *arguments],
        env={**os.environ, "DECKARD_HOME": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )


def _faults(new: Path, state: Path) -> Iterator[str]:
    try:
        yield from inspect_checkpoint(str(new), None, state).found.faults
    except DeployError as error:
        yield error.message


def _remove(folder: Path) -> None:
    subprocess.run(["rm", "-rf", folder], check=True)


if __name__ == "__main__":
    sys.exit(main())
