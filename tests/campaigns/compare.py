"""`compare` with the real engine: python -m tests.campaigns.compare ENGINES TEXT [FORM ...].

ENGINES: a folder with vllm-0.32.0-cpu. The tiny Gemma 4 is served in BF16, in each FORM of `rehearsal` (default:
nvfp4_awq), and in BF16 with noise of 1 % of each linear's standard deviation, one after the other. Each is asked for
the words of TEXT; BF16 is asked once more. Prints one line a comparison, and exits with 1 if BF16 against itself shows
a difference, or the noised copy shows none. A start takes one to five minutes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from deckard_deploy.measuring.fidelity import NO_DIFFERENCE
from deckard_deploy.rehearsal import gemma4
from tests.support.ports import free_port

NAME = "compared"
LENGTHS = ("--characters", "500", "--passages", "40")


def noised(source: Path, folder: Path, share: float) -> Path:
    """Write a copy whose linears have noise of this share of their standard deviation."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    draw = np.random.default_rng(1)
    for name, tensor in tensors.items():
        if "language_model.layers" in name and name.endswith("proj.weight"):
            exact = tensor.astype(np.float32)
            noise = draw.normal(0, share * float(exact.std()), exact.shape).astype(np.float32)
            tensors[name] = (exact + noise).astype(ml_dtypes.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Tool:
    """The program with a state directory of its own."""

    def __init__(self, root: Path, engines: Path) -> None:
        self.home = root / "state"
        self.home.mkdir(mode=0o700)
        (self.home / "engines").symlink_to(engines)

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "deckard_deploy", *arguments],
            env={**os.environ, "DECKARD_HOME": str(self.home)},
            stdout=subprocess.PIPE,
            text=True,
            check=check,
        )
        return done.stdout

    def score(self, folder: Path, text: Path, kept: Path, *, again: Path | None = None) -> None:
        """Serve a folder, keep its scores, and those of a second round if `again` names a file."""
        up = ("up", "--profile", "cpu", "--engine", "vllm-0.32.0-cpu", "--drafter", "none", "--name", NAME)
        try:
            self(*up, "--model", str(folder), "--port", str(free_port()), "--set", "max-model-len=2048")
            for path in filter(None, (kept, again)):
                self("compare", NAME, "--text", str(text), "--save", str(path), *LENGTHS)
        finally:
            self("down", "--name", NAME, "--purge", check=False)

    def compare(self, name: str, a: Path, b: Path) -> dict[str, Any]:
        """Print one comparison as a row, and return it."""
        found: dict[str, Any] = json.loads(self("compare", str(a), str(b), "--json"))
        print(line(name, found), flush=True)
        return found


def line(name: str, found: dict[str, Any]) -> str:
    """Return one comparison as a row."""
    ratio, kl, greedy, speed = found["perplexity_ratio"], found["kl"], found["same_greedy"], found["speed"]
    return (
        f"| {name} | {found['a']['perplexity']:.3f}, {found['b']['perplexity']:.3f} | "
        f"{ratio['value']:.6f} ({ratio['low']:.6f} to {ratio['high']:.6f}) {ratio['verdict']} | "
        f"{kl['value']:.3g} ({kl['low']:.3g} to {kl['high']:.3g}) {kl['verdict']} | "
        f"{greedy['value']:.2%} {greedy['verdict']} | {speed['ratio']:.2f} ({speed['low']:.2f} to {speed['high']:.2f}) "
        f"{speed['verdict']} | {found['b']['weight_bytes'] / found['a']['weight_bytes']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("forms", nargs="*", default=["nvfp4_awq"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        root = Path(scratch)
        tool = Tool(root, arguments.engines.resolve())
        exact = gemma4.write(root / "bf16")
        folders = {"noised by 1 %": noised(exact, root / "noised", 0.01)}
        for form in arguments.forms:
            folders[form] = gemma4.write(root / form, quantization=cast("gemma4.Quantization", form))
        kept = root / "a.json"
        tool.score(exact, arguments.text, kept, again=root / "itself.json")
        itself = tool.compare("itself", kept, root / "itself.json")
        verdicts = {}
        for name, folder in folders.items():
            other = root / f"{folder.name}.json"
            tool.score(folder, arguments.text, other)
            verdicts[name] = tool.compare(name, kept, other)["kl"]["verdict"]
    equal = itself["no_difference"] and itself["kl"]["value"] == 0
    sys.exit(not equal or verdicts["noised by 1 %"] == NO_DIFFERENCE)


if __name__ == "__main__":
    main()
