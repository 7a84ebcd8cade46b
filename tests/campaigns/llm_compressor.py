"""Forms that llm-compressor itself writes, on the CPU engine: python -m tests.campaigns.llm_compressor ENGINES FOLDER.

ENGINES: a folder with vllm-0.32.0-cpu. FOLDER: llm-compressor and what the engine lacks of its requirements, which no
lock of ours covers (300 MB), removed by hand afterwards:

    python3 -m pip install --target FOLDER --no-deps llmcompressor==0.14.0.1 compressed-tensors==0.19.0 \
        transformers==5.17.0 'huggingface-hub<2' hf-xet accelerate datasets 'auto-round<=0.15.1' pyarrow pandas dill \
        multiprocess xxhash nvidia-ml-py loguru pytz tzdata python-dateutil six

The tiny Gemma 4 is quantized in each scheme by write_compressed.py. Each folder is planned by the tool, loaded by vLLM
with the plugin that a plan has for it, and asked for the plain and the thinking script. Prints a line each. Exits
with 1 if one is not planned, or loses its script where a CPU has a kernel (NO_KERNEL).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deckard_deploy.patching import plugin
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.rehearsal.script import ANSWER_TEXT, PLAIN_TEXT, THOUGHT_TEXT
from tests.campaigns.compare import Tool

HERE = Path(__file__).parent
ENGINE = "vllm-0.32.0-cpu"
SCHEMES = ("FP8_DYNAMIC", "W4A16", "NVFP4", "NVFP4A16")
# Without activations of four bits vLLM 0.32.0 takes Marlin, which is for GPUs; the plugin's emulation is of NVFP4.
NO_KERNEL = {"NVFP4A16": "MarlinNvFp4LinearKernel is not supported"}


def write(python: Path, site: Path, exact: Path, folder: Path) -> Path:
    """Write the folder, whose name is the scheme."""
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    program = HERE / "write_compressed.py"
    subprocess.run([python, program, exact, folder, folder.name], env=environment, check=True)
    return folder


def answers(python: Path, folders: list[Path], wheel: Path) -> dict[str, dict[str, Any]]:
    """Return what vLLM answers with each folder."""
    environment = {**os.environ, "PYTHONPATH": str(wheel), "HF_HUB_OFFLINE": "1"}
    program = HERE.parent / "e2e/tiny_engine.py"
    done = subprocess.run(
        [python, program, *folders], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def outcome(name: str, texts: dict[str, Any]) -> str:
    """Return what became of a scheme, "" if that is wrong."""
    plain, thinking = texts.get("plain", ""), texts.get("thinking", "")
    if PLAIN_TEXT in plain and THOUGHT_TEXT in thinking and ANSWER_TEXT in thinking:
        return "both scripts"
    if NO_KERNEL.get(name, "none") in texts.get("error", ""):
        return "no kernel on a CPU"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engines", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    python = arguments.engines.resolve() / ENGINE / "bin/python"
    with tempfile.TemporaryDirectory(prefix="compressed-") as scratch:
        root = Path(scratch)
        tool = Tool(root, arguments.engines.resolve())
        exact = gemma4.write(root / "exact")
        written = [write(python, arguments.folder.resolve(), exact, root / scheme) for scheme in SCHEMES]
        for folder in written:
            tool("plan", "--profile", "cpu", "--engine", ENGINE, "--model", str(folder), "--json")
        found = answers(python, written, plugin.build(plugin.NAME, root / plugin.WHEEL))
    outcomes = {folder.name: outcome(folder.name, found[folder.name]) for folder in written}
    for name, said in outcomes.items():
        print(f"{name}: planned, {said or f'lost: {found[name]}'}")
    sys.exit(not all(outcomes.values()))


if __name__ == "__main__":
    main()
