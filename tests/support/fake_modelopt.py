"""ModelOpt's environment for tests of what is around it: a Python that answers as inside_modelopt.py does.

The real one is installed and run by tests/campaigns/quantize.py. This one copies a checkpoint that
rehearsal/gemma4.py packed, and fails in ways that the real one cannot be made to fail in.
"""

import json
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from deckard_deploy.running.process import environment
from deckard_deploy.running.process.locks import QUANTIZERS

CPU = "modelopt-0.47.0-cpu"
PHASES = ("load", "calibrate", "export", "check")


def install(engines: Path, export: Path, **behaviour: object) -> None:
    """Put a complete environment into `engines` whose worker exports a copy of `export`.

    behaviour: `fail` (last line on stderr), `code` (exit code), `killed` (by SIGKILL), `stop_at` (a phase in which it
    waits), `errors` (of linears), `without` (a tensor's file that is left out).
    """
    folder = engines / CPU
    (folder / "bin").mkdir(parents=True)
    (engines / f".{CPU}.lock").touch()
    python = folder / "bin" / "python"
    program = [sys.executable, str(Path(__file__).resolve()), str(folder / "behaviour.json")]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(program)} "$@"\n')
    python.chmod(0o755)
    (folder / "behaviour.json").write_text(json.dumps({"export": str(export), **behaviour}))
    stamp = environment._expected_stamp(QUANTIZERS[CPU])
    (folder / environment.STAMP).write_text(json.dumps(stamp | {"version": "0.47.0", "torch": "none"}))
    assert stamp["python"] == platform.python_version()


def main() -> None:
    behaviour: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    job = json.loads(Path(sys.argv[-1]).read_text())
    for phase in PHASES:
        print(json.dumps({"phase": phase, "done": 0, "what": "a test"}), flush=True)
        if phase == behaviour.get("stop_at"):
            os.read(0, 1)  # until the parent is gone
            time.sleep(behaviour.get("linger", 0))
            sys.exit(130)
        if phase == "export":
            shutil.copytree(behaviour["export"], job["export"])
    if behaviour.get("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if "fail" in behaviour:
        print(behaviour["fail"], file=sys.stderr)
        sys.exit(behaviour.get("code", 1))
    texts = Path(job["texts"]).read_text().splitlines()
    result = {
        "seconds": dict.fromkeys(PHASES, 1.0),
        "texts": len(texts),
        "tokens": 7 * len(texts),
        "errors": behaviour.get("errors", {"model.language_model.layers.0.mlp.up_proj": 0.01}),
        "device": job["device"],
        "peak_gpu_bytes": None,
        "torch": "2.13.0",
    }
    print(json.dumps({"result": result}), flush=True)


if __name__ == "__main__":
    main()
