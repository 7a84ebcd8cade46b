"""Run programs with a real vLLM whose files are patched as a deployment patches them, or left as they are."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deckard_deploy.patching.base_files import from_package
from deckard_deploy.patching.build import build
from deckard_deploy.patching.manifest import load_patch_set
from deckard_deploy.patching.overlay import create_overlay

HERE = Path(__file__).parent
WHERE = "import importlib.util; print(*importlib.util.find_spec('vllm').submodule_search_locations)"
QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


def package_of(python: Path) -> Path:
    """The folder of the vllm package that this Python imports."""
    done = subprocess.run(
        [python, "-P", "-c", WHERE], capture_output=True, text=True, check=True, env=environment(None)
    )
    return Path(done.stdout.strip())


def make_overlay(python: Path, folder: Path) -> Path:
    """The folder for the front of PYTHONPATH, with all patches in it."""
    patch_set, package = load_patch_set("vllm-0.19.1"), package_of(python)
    base = from_package(package, [patch.target for patch in patch_set.patches])
    return create_overlay(package, build(patch_set, base, folder / "files"), folder / "overlay")


def environment(first_on_path: Path | None) -> dict[str, str]:
    """This process's environment, with the patched tree or without any."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, **QUIET, **({"PYTHONPATH": str(first_on_path)} if first_on_path else {})}


def run(python: Path, program: str, arguments: Sequence[str], first_on_path: Path | None) -> dict[str, Any]:
    """The JSON object that a program of this folder prints last."""
    argv = [str(python), str(HERE / program), *arguments]
    done = subprocess.run(
        argv, env=environment(first_on_path), capture_output=True, text=True, timeout=600, check=False
    )
    sys.stderr.write(done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout[done.stdout.index('{"module"') :]))
