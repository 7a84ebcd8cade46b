"""Many cycles of `up` and `down`, and what they left.

    python -m tests.campaigns.cycles docker|process|vllm [CYCLES] [SECONDS]

It ends after so many cycles or seconds. The first two load and rotate what is there once; what is there after them is
what the others are held against.

vllm takes ENGINE_IMAGE and GATEWAY_IMAGE, which tests/e2e/image/build.sh and gateway.sh make and print.
CI runs a few of each of the first two.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from tests.support import docker_deployment, start_cycles

FIRST = 2


def cycle_of(kind: str, folder: Path) -> start_cycles.Cycle:
    if kind == "vllm":
        return start_cycles.of_vllm(folder, os.environ["ENGINE_IMAGE"], os.environ["GATEWAY_IMAGE"])
    return {"docker": start_cycles.of_docker, "process": start_cycles.of_process}[kind](folder)


def run(kind: str, most: int, seconds: int) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        docker_deployment.small_image(Path(name)) if kind == "docker" else nullcontext(),
    ):
        tempfile.tempdir = os.environ["TMPDIR"] = str(Path(name) / "temporary")
        Path(tempfile.tempdir).mkdir()
        cycle, began, done = cycle_of(kind, Path(name)), time.monotonic(), FIRST
        try:
            cycle.turn(FIRST)
            before = cycle.count()
            while done < most and time.monotonic() - began < seconds:
                cycle.turn(1)
                done += 1
        finally:
            cycle.down()
        after = cycle.count()
    print(f"after {FIRST}: {before}\nafter {done}: {after}")
    print(
        f"{done} cycles in {time.monotonic() - began:.0f} s; left behind: {after.more_than(before) or 'nothing'}"
    )
    sys.exit(bool(after.more_than(before)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["docker", "process", "vllm"])
    parser.add_argument("cycles", type=int, nargs="?", default=500)
    parser.add_argument("seconds", type=int, nargs="?", default=1_000_000)
    options = parser.parse_args()
    run(options.kind, options.cycles, options.seconds)


if __name__ == "__main__":
    main()
