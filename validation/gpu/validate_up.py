"""Run `up` on a GPU machine without Docker or a network, with vLLM 0.19.1 in an environment of the user's own.

On an sm_90 machine with PyTorch, from the repository's root, with .gpu/site.tar.xz unpacked in SITE and the tool's own
dependencies importable:

    python3 -m validation.gpu.validate_up SITE WORK OUT PROFILE

OUT gets what each command said and the server's log. The engine's folder is made of two scripts that add what the
bundle needs (see bundle.py) to whatever environment the tool starts them with.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ENGINE = "vllm-0.19.1-host"
# Without eager execution, so that the log has the phases of a real start: compilation and CUDA graphs.
# The bundle has no FlashAttention; the released model's two head sizes rule it out as well.
UP = (
    *("--model", "tiny-gemma4", "--engine", ENGINE, "--port", "8123", "--name", "gpu"),
    *("--set", "enforce-eager=null", "--set", "attention-backend=TRITON_ATTN"),
)
FIXED_CACHE = ("--set", f"kv-cache-memory-bytes={2 << 30}")  # profiled memory is not to be known before


def make_environment(site: Path, folder: Path) -> None:
    libraries = f"{site}/nvidia/cuda_runtime/lib"
    packages = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (packages / "vllm").symlink_to(site / "vllm")
    (folder / "bin").mkdir()
    for name, module in (("python", ""), ("vllm", "-m vllm.entrypoints.cli.main")):
        program = folder / "bin" / name
        program.write_text(
            "#!/bin/sh\n"
            f'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{site}"\n'
            f'export LD_PRELOAD="{site}/libmessage_logger_shim.so"\n'
            f'export LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"\n'
            f'exec {sys.executable} {module} "$@"\n'
        )
        program.chmod(0o755)


def call(out: Path, name: str, home: Path, *arguments: str) -> int:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "deckard_deploy", *arguments],
        env={**os.environ, "DECKARD_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    line = f"$ deckard-deploy {' '.join(arguments)}\n{done.stderr}{done.stdout}"
    (out / f"{name}.txt").write_text(line)
    print(f"{line}exit {done.returncode}, {time.monotonic() - started:.0f} s\n", flush=True)
    return done.returncode


def main() -> None:
    site, work, out, profile = (*map(Path, sys.argv[1:4]), sys.argv[4])
    home, plan = work / "state", ("--profile", profile, *UP)
    out.mkdir(parents=True, exist_ok=True)
    make_environment(site, home / "engines" / ENGINE)
    call(out, "up", home, "up", *plan, *FIXED_CACHE)
    call(out, "again", home, "up", *plan, *FIXED_CACHE)
    call(out, "chat", home, "chat", "--name", "gpu", "Hello?")
    call(out, "status", home, "status")
    call(out, "bench", home, "bench", "--name", "gpu", "--concurrency", "1,4")
    for log in home.glob("deployments/gpu/releases/*/vllm.log"):
        shutil.copy(log, out / "server.log")
    call(out, "down", home, "down", "--name", "gpu")


if __name__ == "__main__":
    main()
