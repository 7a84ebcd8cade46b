"""The campaigns of pull in which files are damaged and disks fill up."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.pull import pull
from tests.campaigns.pull_hub import NAME, SIZE, Trap, manifest_of, serve, served, silent
from tests.support.hub_server import Hub, content


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
    paths = {
        "flip": [folder / one],
        "cut": [folder / one],
        "swap": [folder / one, folder / other],
        "clean": [],
    }[kind]
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
                    if (
                        not careless
                        and "bytes more" not in error.message
                        and "cannot write" not in error.message
                    ):
                        yield f"{size}: {error.message}"
                yield from wrong(disk, hub, size)
                subprocess.run(["mount", "-o", f"remount,size={SIZE * 2}", str(disk)], check=True)
                pull(manifest, disk / "m", silent())
                resumed += trap.get()[2] - before < 2 * SIZE - min(SIZE, size) // 2
                if not (disk / "m" / NAME).exists():
                    yield f"{size}: not complete with the space back"
                yield from wrong(disk, hub, size)
    print(
        f"refused before the first byte {refused}, complete {complete}; stopped on the way {stopped} of {runs}"
    )
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
