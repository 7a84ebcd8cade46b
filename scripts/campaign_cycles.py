#!/usr/bin/env python3
"""Many cycles of `up` and `down`, and what they left: scripts/campaign_cycles.py docker|process|vllm [CYCLES] [FIRST].

What is there after the FIRST ones, which load and rotate what is there once, is what the others are held against.
vllm takes ENGINE_IMAGE and GATEWAY_IMAGE, which tests/e2e/image/build.sh and gateway.sh make and print.
CI runs a few of each of the first two.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.e2e import cycles, docker_world


def made(kind: str, folder: Path) -> cycles.Cycle:
    if kind == "vllm":
        return cycles.of_vllm(folder, os.environ["ENGINE_IMAGE"], os.environ["GATEWAY_IMAGE"])
    return {"docker": cycles.of_docker, "process": cycles.of_process}[kind](folder)


def main(kind: str, count: int = 500, first: int = 2) -> None:
    with tempfile.TemporaryDirectory() as name, docker_world.small_image(Path(name)):
        tempfile.tempdir = os.environ["TMPDIR"] = str(Path(name) / "temporary")
        Path(tempfile.tempdir).mkdir()
        cycle, began = made(kind, Path(name)), time.monotonic()
        cycle.turn(first)
        before = cycle.count()
        cycle.turn(count - first)
        after = cycle.count()
    print(f"after {first}: {before}\nafter {count}: {after}")
    print(f"{count} cycles in {time.monotonic() - began:.0f} s; left behind: {after.more_than(before) or 'nothing'}")
    sys.exit(bool(after.more_than(before)))


main(sys.argv[1], *map(int, sys.argv[2:]))
