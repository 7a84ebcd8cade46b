#!/usr/bin/env python3
"""Pull weights under faults, thousands of times, from a real hub on loopback, and look at what is left.

    kill      the server kills the puller (SIGKILL) after an exact number of bytes: no wrong file under a final name, at
              most 1 MiB fetched again per kill, nothing left over in the end
    corrupt   flipped bits (times restored), cut files, swapped files: each must be named; clean folders must be clean
    full      a small tmpfs, refused before the first byte or complete; then one that fills up on the way (needs root)

Everything happens in a temporary folder. Exit status 1 on a violation.

    scripts/campaign_pull.py kill --runs 1000 --seed 7
"""

import argparse
import hashlib
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.weights.folder import OURS, ModelFolder
from deckard_deploy.weights.manifest import Manifest, RemoteFile
from deckard_deploy.weights.pull import Puller, pull
from deckard_deploy.weights.transfer import Pace
from tests.unit.weights.hub_server import COMMIT, REPO, Answer, Hub, content

NAME = "model.safetensors"
SIZE = 8 << 20
PIECE = 16 << 10
PACE = Pace(connections=4, segment_bytes=1 << 20, backoff_s=0.01, stall_s=5)
ALLOWED = 1 << 20


def main() -> int:
    """Parse, run, print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kill", "corrupt", "full"))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--careless", action="store_true", help="without the guard: the violations must be noticed")
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311  a repeatable campaign, not a secret
    campaign: Callable[[Path, int, random.Random, bool], Iterator[str]] = {
        "kill": kills, "corrupt": corruptions, "full": full_disks,
    }[options.what]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        violations = list(campaign(Path(folder), options.runs, rng, options.careless))
    for violation in violations:
        print(violation)
    print(f"{options.runs} runs, {len(violations)} violations")
    return 1 if violations else 0


class Trap:
    """What the server's process and ours share: whom to kill, after how many bytes, how many were sent."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 24)

    def set(self, pid: int, after: int) -> None:
        self._memory[:24] = struct.pack("<qqq", pid, after, 0)

    def get(self) -> tuple[int, int, int]:
        pid, after, sent = struct.unpack("<qqq", self._memory[:24])
        return pid, after, sent

    def sent(self, count: int) -> None:
        self._memory[16:24] = struct.pack("<q", count)


def serve(hub: Hub, trap: Trap) -> None:
    """Send exactly as many bytes as the trap says, over however many connections, then kill the client."""

    def bounded(answer: Answer, name: str, start: int, end: int) -> bool:
        data = hub.files[name]
        # What waits in the server's own buffer was not fetched; keep that small, so that "sent" means "arrived".
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        answer.head(data, start, end)
        position = start
        while position < end:
            with hub.lock:
                pid, after, sent = trap.get()
                if pid < 0:
                    answer.cut()
                    return True
                count = min(PIECE, end - position, after - sent)
                answer.wfile.write(data[position : position + count])
                trap.sent(sent + count)
                position += count
                if sent + count == after:
                    trap.set(-1, 0)
                    trap.sent(sent + count)
                    os.kill(pid, signal.SIGKILL)
        return True

    hub.fault = bounded
    hub.server.serve_forever(poll_interval=0.05)


def manifest_of(hub: Hub) -> Manifest:
    """What the hub would say; asked for once."""
    files = tuple(
        RemoteFile(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in hub.files.items()
    )
    return Manifest(repo=REPO, commit=COMMIT, files=files)


@contextmanager
def served(hub: Hub, work: Callable[[], None]) -> Iterator[None]:
    """The hub in a process of its own, so that this one has no threads and may fork."""
    os.environ["HF_ENDPOINT"] = hub.url
    server = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    server.start()
    try:
        yield
    finally:
        server.kill()
        server.join()


def silent() -> Puller:
    """A puller that nobody watches."""
    return Puller(lambda _: None, lambda *_: None, PACE)


def journal_done(folder: Path, manifest: Manifest) -> int:
    """Bytes that a next pull will not fetch again."""
    if (folder / NAME).exists():
        return SIZE
    path = folder / OURS / "parts" / f"{manifest.files[0].digest}.journal"
    data = path.read_bytes()[512:] if path.exists() else b""
    return sum(value for (value,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8]))


def kills(root: Path, runs: int, rng: random.Random, careless: bool) -> Iterator[str]:  # noqa: FBT001  one table for all
    """Pull and kill until `runs` kills have hit; complete each file in the end."""
    hub, trap = Hub({NAME: content(SIZE)}), Trap()
    manifest = manifest_of(hub)
    pull(Manifest(repo=REPO, commit=COMMIT, files=()), root / "warm", silent())  # import everything before forking
    folder, hit, worst, again = root / "m", 0, 0, 0
    with served(hub, lambda: serve(hub, trap)):
        while hit < runs:
            before = journal_done(folder, manifest)
            edge = rng.choice((0, 1, 2, PIECE, (1 << 20) - 1, 1 << 20, SIZE - before - 1, SIZE - before))
            after = max(1, min(rng.choice((edge, rng.randrange(1, SIZE))), SIZE - before))
            status = victim(lambda: pull(manifest, folder, silent()), trap, after)
            if careless and (folder / OURS / "parts").exists():
                shutil.rmtree(folder / OURS / "parts")
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
    print(f"{hit} kills hit; {again} bytes fetched again in all, {worst} at worst, {again // max(hit, 1)} on average")


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
    left = [path.name for path in folder.rglob("*") if path.is_file() and path.suffix in (".part", ".journal", ".new")]
    if left:
        yield f"left over: {left}"
    shutil.rmtree(folder)


def corruptions(root: Path, runs: int, rng: random.Random, careless: bool) -> Iterator[str]:  # noqa: FBT001  one table
    """`runs` flips, a tenth as many cuts and swaps each, `runs` clean checks."""
    files = {f"model-{number}.safetensors": content(200_000, seed=number) for number in range(4)}
    hub = Hub(files)
    manifest, folder = manifest_of(hub), root / "m"
    with served(hub, lambda: hub.server.serve_forever(poll_interval=0.05)):
        pull(manifest, folder, silent())
    model, wanted = ModelFolder(folder), list(manifest.needed)
    names = sorted(files)

    def named() -> set[str]:
        return set() if careless else {one.path for one in model.check(wanted)}

    found = {"flip": 0, "cut": 0, "swap": 0, "clean": 0}
    fast = 0
    for kind, count in (("flip", runs), ("cut", runs // 10), ("swap", runs // 10), ("clean", runs)):
        for _ in range(count):
            hurt = damage(folder, kind, rng, names)
            fast += kind != "clean" and hurt <= {file.path for file in model.changed(wanted)}
            seen = named()
            if seen != hurt:
                yield f"{kind} of {sorted(hurt)}: {sorted(seen)} were named"
            found[kind] += seen == hurt
            for name in hurt:
                (folder / name).write_bytes(files[name])
            if hurt:
                model.check(wanted)
    print(f"right verdicts: {found}; seen by the fast check alone: {fast} of {runs + runs // 10 * 2}")


def damage(folder: Path, kind: str, rng: random.Random, names: list[str]) -> set[str]:
    """Hurt one or two files and give them their times back; returns which."""
    one, other = rng.sample(names, 2)
    paths = {"flip": [folder / one], "cut": [folder / one], "swap": [folder / one, folder / other], "clean": []}[kind]
    times = {path: path.stat() for path in paths}
    if kind == "flip":
        data = bytearray(paths[0].read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        paths[0].write_bytes(data)
    elif kind == "cut":
        os.truncate(paths[0], rng.randrange(paths[0].stat().st_size))
    elif kind == "swap":
        first, second = (path.read_bytes() for path in paths)
        paths[0].write_bytes(second)
        paths[1].write_bytes(first)
    for path, before in times.items():
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {path.name for path in paths}


def full_disks(root: Path, runs: int, _: random.Random, careless: bool) -> Iterator[str]:  # noqa: FBT001  one table
    """`runs` sizes of a tmpfs: honestly checked first, then with the space gone after the check."""
    hub = Hub({NAME: content(SIZE)})
    manifest = manifest_of(hub)
    trap = Trap()
    refused = complete = stopped = resumed = 0
    with served(hub, lambda: serve(hub, trap)):
        for number in range(runs):
            size = SIZE * (number + 1) // runs * 5 // 4 // 4096 * 4096 + 65536
            trap.set(0, 1 << 60)
            with tmpfs(root / "disk", size) as disk:
                try:
                    pull(manifest, disk / "m", silent())
                    complete += 1
                except EnvironmentUnfitError as error:
                    refused += 1
                    if trap.get()[2] or "are free" not in error.message:
                        yield f"{size}: {trap.get()[2]} bytes were fetched before: {error.message}"
                yield from wrong(disk, hub, size)
            with tmpfs(root / "disk", size) as disk, unchecked():
                before = trap.get()[2]
                try:
                    pull(manifest, disk / "m", silent())
                except EnvironmentUnfitError as error:
                    stopped += 1
                    if not careless and "bytes more" not in error.message and "cannot write" not in error.message:
                        yield f"{size}: {error.message}"
                yield from wrong(disk, hub, size)
                subprocess.run(["mount", "-o", f"remount,size={SIZE * 2}", str(disk)], check=True)
                pull(manifest, disk / "m", silent())
                resumed += trap.get()[2] - before < 2 * SIZE - min(SIZE, size) // 2
                if not (disk / "m" / NAME).exists():
                    yield f"{size}: not complete with the space back"
                yield from wrong(disk, hub, size)
    print(f"refused before the first byte {refused}, complete {complete}; stopped on the way {stopped} of {runs}")
    print(f"of {runs} that had space back, {resumed} went on where they were")


def wrong(disk: Path, hub: Hub, size: int) -> Iterator[str]:
    """A final name must hold the right bytes."""
    final = disk / "m" / NAME
    if final.exists() and final.read_bytes() != hub.files[NAME]:
        yield f"{size}: {NAME} is wrong"


@contextmanager
def tmpfs(path: Path, size: int) -> Iterator[Path]:
    """A file system of its own."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        for _ in range(20):  # a thread that waits for the server may still hold the file
            if subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.2)


@contextmanager
def unchecked() -> Iterator[None]:
    """Another program takes the space just after the check."""
    honest = shutil.disk_usage
    shutil.disk_usage = lambda path: honest(path)._replace(free=1 << 60)
    try:
        yield
    finally:
        shutil.disk_usage = honest


if __name__ == "__main__":
    sys.exit(main())
