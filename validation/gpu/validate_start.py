"""Start DECKARD's real sizes by `up`, cold and warm, on a GPU machine without Docker or a network; tune a smaller one.

The checkpoints are those of full_size.py, the engine is vLLM 0.33.0 from an archive of bundle.py, unpacked in SITE, as
the environment `vllm-0.33.0-host`. Python must find the tool's own dependencies (TOOL). From the repository's root:

    python3 -m validation.gpu.validate_start start --site SITE --tool TOOL --work WORK --out OUT
    python3 -m validation.gpu.validate_start tune --site SITE --tool TOOL --work WORK --out OUT --layers 12

`start`: `up` with empty caches and files that are not in the page cache, `chat`, `status`, `bench`, `down`, and `up`
again. `tune`: `up`, then `tune` of six candidates in eight minutes. OUT gets what each command said, and each engine's
log. Without a GPU: `--cpu PYTHON`, of vLLM's CPU build, runs the same with a small model.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "gpu"
SELECTION = ("--name", NAME)
GPU_UP = ("--profile", "h200", "--engine", "vllm-0.33.0-host", "--drafter", "mtp")
CPU_UP = ("--profile", "cpu", "--engine", "vllm-0.32.0-cpu", "--model", "./models/deckard-31b")
# What the profile's own drafter and backends leave open; one candidate each.
GPU_TRIES = (
    "drafter_tokens=2",
    "drafter_tokens=7",
    "drafter=none",
    "linear-backend=marlin",
    "performance-mode=interactivity",
    "max-num-batched-tokens=2048",
)
CPU_TRIES = ("max-num-batched-tokens=512", "max-num-seqs=2")


class Machine:
    """The folders of one run, and the tool's commands in them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.state, self.out = args.work / "state", args.out
        self.cpu, self.site, self.tool = args.cpu, args.site, args.tool
        self.python = args.cpu or sys.executable
        self.up = (*(CPU_UP if args.cpu else GPU_UP), *SELECTION, "--port", "8123", "--force")
        self.out.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        paths = [str(ROOT), str(self.tool), str(self.site) if self.site else ""]
        home = self.state.parent / "home"
        home.mkdir(exist_ok=True)
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DECKARD_HOME": str(self.state),
            "HOME": str(home),  # Triton and Humming keep their caches there
        }

    def write_checkpoints(self, layers: int) -> None:
        program = [self.python, "-m", "validation.gpu.full_size"]
        size = ["--layers", str(layers), *(("--small",) if self.cpu else ())]
        subprocess.run(
            [*program, self.state, self.state / "deckard.lock", *size],
            cwd=ROOT,
            env=self.environment(),
            check=True,
        )
        for file in self.state.glob("models/*/*"):
            _leave_page_cache(file)

    def install_engine(self) -> None:
        """Make the environment of two scripts that add the archive to whatever environment they are started with."""
        if self.cpu:
            folder = self.state / "engines/vllm-0.32.0-cpu"
            folder.parent.mkdir()
            folder.symlink_to(Path(self.cpu).parents[1])
            return
        folder = self.state / "engines/vllm-0.33.0-host"
        packages = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        packages.mkdir(parents=True)
        (packages / "vllm").symlink_to(self.site / "vllm")
        (folder / "bin").mkdir()
        for name, module in (("python", ""), ("vllm", "-m vllm.entrypoints.cli.main")):
            program = folder / "bin" / name
            program.write_text(
                "#!/bin/sh\n"
                f'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{self.site}"\n'
                f"export VLLM_USE_FLASHINFER_SAMPLER=0\n"  # FlashInfer is not carried
                f'exec {sys.executable} {module} "$@"\n'
            )
            program.chmod(0o755)

    def call(self, name: str, *arguments: str) -> None:
        """Run one command of the tool. Write what it said to `name`.txt, and print it."""
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "deckard_deploy", *arguments],
            cwd=self.state,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        text = f"$ deckard-deploy {' '.join(arguments)}\n{done.stdout}exit {done.returncode}, {seconds:.0f} s\n\n"
        with (self.out / "commands.txt").open("a") as file:
            file.write(text)
        print(text, flush=True)
        for log in self.state.glob(f"deployments/{NAME}/releases/*/vllm.log"):
            shutil.copy(log, self.out / f"{name}.log")


def _leave_page_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def start(machine: Machine) -> None:
    machine.call("cold", "up", *machine.up)
    machine.call("again", "up", *machine.up)
    machine.call("chat", "chat", *SELECTION, "--max-tokens", "32", "w600 w700")
    machine.call("status", "status", *SELECTION)
    machine.call("bench", "bench", *SELECTION, "--concurrency", "1,4")
    machine.call("down", "down", *SELECTION)
    machine.call("warm", "up", *machine.up)
    machine.call("down", "down", *SELECTION)


def tune(machine: Machine, budget: str) -> None:
    tries: list[str] = []
    for settings in CPU_TRIES if machine.cpu else GPU_TRIES:
        tries += ["--try", settings]
    machine.call("up", "up", *machine.up)
    options = [option for option in machine.up if option != "--force"]
    machine.call("tune", "tune", *options, "--budget", budget, *tries)
    machine.call("status", "status", *SELECTION)
    for record in machine.state.glob("bench/**/*tune*"):
        if record.is_file():
            shutil.copy(record, machine.out)
    machine.call("down", "down", *SELECTION)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["start", "tune"])
    parser.add_argument("--site", type=Path, help="the unpacked archive of bundle.py")
    parser.add_argument("--tool", type=Path, required=True, help="the tool's own dependencies")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--budget", default="8m")
    parser.add_argument("--cpu", metavar="PYTHON")
    args = parser.parse_args()
    machine = Machine(args)
    machine.write_checkpoints(args.layers)
    machine.install_engine()
    if args.verb == "start":
        start(machine)
    else:
        tune(machine, args.budget)


if __name__ == "__main__":
    main()
