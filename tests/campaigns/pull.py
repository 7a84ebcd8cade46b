"""Pull weights under faults, thousands of times, from a real hub on loopback, and look at what is left.

    kill      the server kills the puller (SIGKILL) after an exact number of bytes: no wrong file under a final name, at
              most 1 MiB fetched again per kill, nothing left over in the end
    freeze    the puller is stopped (SIGSTOP) while the server sends on until nothing more is taken, then killed: all
              that the kernel holds is lost, and that must be at most 1 MiB
    corrupt   flipped bits (times restored), cut files, swapped files: each must be named, a clean folder clean
    full      a small tmpfs, refused before the first byte or complete; then one that fills up on the way (needs root)

Everything happens in a temporary folder. Exit status 1 on a violation.

    python -m tests.campaigns.pull kill --runs 1000 --seed 7
"""

import argparse
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deckard_deploy.weights.folder import PRIVATE_FOLDER
from deckard_deploy.weights.manifest import Manifest
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.transfer import TransferSettings
from tests.campaigns.pull_damage import corruptions, full_disks
from tests.campaigns.pull_hub import (
    ALLOWED,
    NAME,
    PIECE,
    SIZE,
    Trap,
    manifest_of,
    serve,
    serve_on,
    served,
    silent,
)
from tests.support.hub_server import COMMIT, REPO, Hub, content


def main() -> int:
    """Parse, run, print the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("kill", "freeze", "corrupt", "full"))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--careless", action="store_true", help="without the guard: the violations must be noticed"
    )
    options = parser.parse_args()
    rng = random.Random(options.seed)
    campaign: Callable[[Path, int, random.Random, bool], Iterator[str]] = {
        "kill": kills, "freeze": freezes, "corrupt": corruptions, "full": full_disks,
    }[options.what]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        violations = list(campaign(Path(folder), options.runs, rng, options.careless))
    for violation in violations:
        print(violation)
    print(f"{options.runs} runs, {len(violations)} violations")
    return 1 if violations else 0


def journal_done(folder: Path, manifest: Manifest) -> int:
    """Bytes that a next pull will not fetch again."""
    if (folder / NAME).exists():
        return manifest.files[0].size
    path = folder / PRIVATE_FOLDER / "parts" / f"{manifest.files[0].digest}.journal"
    data = path.read_bytes()[512:] if path.exists() else b""
    return sum(value for (value,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8]))


def kills(root: Path, runs: int, rng: random.Random, careless: bool) -> Iterator[str]:  # noqa: FBT001  one table for all
    """Pull and kill until `runs` kills have hit; complete each file in the end."""
    hub, trap = Hub({NAME: content(SIZE)}), Trap()
    manifest = manifest_of(hub)
    # Import everything before forking.
    pull(Manifest(repo=REPO, commit=COMMIT, files=()), root / "warm", silent())
    folder, hit, worst, again = root / "m", 0, 0, 0
    with served(hub, lambda: serve(hub, trap)):
        while hit < runs:
            before = journal_done(folder, manifest)
            edge = rng.choice((0, 1, 2, PIECE, (1 << 20) - 1, 1 << 20, SIZE - before - 1, SIZE - before))
            after = max(1, min(rng.choice((edge, rng.randrange(1, SIZE))), SIZE - before))
            status = victim(lambda: pull(manifest, folder, silent()), trap, after)
            if careless and (folder / PRIVATE_FOLDER / "parts").exists():
                shutil.rmtree(folder / PRIVATE_FOLDER / "parts")
            if os.WIFSIGNALED(status):
                hit += 1
                wasted = trap.get()[2] - (journal_done(folder, manifest) - before)
                worst, again = max(worst, wasted), again + wasted
                if wasted > ALLOWED:
                    yield f"kill {hit} after {after} bytes: {wasted} are fetched again"
            if (folder / NAME).exists() and (folder / NAME).read_bytes() != hub.files[NAME]:
                yield f"kill {hit}: {NAME} is wrong"
            if (folder / NAME).exists() or hit == runs or rng.random() < 0.15:
                yield from finished(folder, manifest, trap, hub)
    print(
        f"{hit} kills hit; {again} bytes fetched again in all, {worst} at worst, {again // max(hit, 1)} on average"
    )


def freezes(root: Path, runs: int, rng: random.Random, careless: bool) -> Iterator[str]:  # noqa: FBT001  one table
    """Stop, let the queues fill, kill: the worst that a kill can cost."""
    hub, trap, folder = Hub({NAME: rng.randbytes(64 << 20)}), Trap(), root / "m"
    manifest, pace = (
        manifest_of(hub),
        TransferSettings(near_us=-1 if careless else TransferSettings.near_us, segment_bytes=8 << 20),
    )
    puller = PullReporter(lambda _: None, lambda *_: None, pace)
    # Import everything before forking.
    pull(Manifest(repo=REPO, commit=COMMIT, files=()), root / "warm", puller)
    worst = 0
    with served(hub, lambda: serve_on(hub, trap)):
        for number in range(runs):
            shutil.rmtree(folder, ignore_errors=True)
            trap.set(0, 0)
            wanted = rng.randrange(1 << 20, 48 << 20)
            pid = os.fork()
            if pid == 0:
                pull(manifest, folder, puller)
                os._exit(0)
            while journal_done(folder, manifest) < wanted:
                time.sleep(0.001)
            os.kill(pid, signal.SIGSTOP)
            before = -1
            while before != trap.get()[2]:
                before = trap.get()[2]
                time.sleep(0.3)
            arrived = trap.get()[2] - on_the_way(hub.server.server_address[1])
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            wasted = arrived - journal_done(folder, manifest)
            worst = max(worst, wasted)
            if wasted > ALLOWED:
                yield f"freeze {number}: {wasted} are fetched again"
    print(f"{worst} bytes fetched again at worst")


def on_the_way(port: int) -> int:
    """Bytes that the server's kernel has and the client's has not: tx_queue in proc(5), /proc/net/tcp."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}"))


def victim(work: Callable[[], object], trap: Trap, after: int) -> int:
    """Run `work` in a forked process that the trap is set for; returns how it ended."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(ready, 1)
        try:
            work()
        finally:
            os._exit(0)
    trap.set(pid, after)
    os.write(go, b"x")
    _, status = os.waitpid(pid, 0)
    os.close(ready)
    os.close(go)
    return status


def finished(folder: Path, manifest: Manifest, trap: Trap, hub: Hub) -> Iterator[str]:
    """The last pull of a file, not killed; then a fresh folder."""
    victim(lambda: pull(manifest, folder, silent()), trap, 1 << 40)
    if not (folder / NAME).exists() or (folder / NAME).read_bytes() != hub.files[NAME]:
        yield "the last pull did not bring the file"
    left = [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".part", ".journal", ".new")
    ]
    if left:
        yield f"left over: {left}"
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
