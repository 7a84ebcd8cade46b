"""Run one pull in a process of its own, with the package on PYTHONPATH, and print its end as JSON.

    pull_worker.py FOLDER [flock-lies|fsync-fails|eio-on-write|quota|impatient]

All but `impatient` fake a failure that cannot be caused on every file system.
`impatient` shortens the time after which a connection is stalled.
"""

import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from deckard_deploy.errors import DeployError
from deckard_deploy.weights import hub
from deckard_deploy.weights.folder import PRIVATE_FOLDER, ModelFolder
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.transfer import TransferSettings
from tests.support.hub_server import REPO
from tests.support.pull_sandbox import SEGMENT

Writer = Callable[[int, memoryview, int], int]


def fails_for_weights(descriptor: int, really: Callable[[int], None] = os.fsync) -> None:
    if os.fstat(descriptor).st_size > 1_000_000:
        raise OSError(5, "Input/output error")
    really(descriptor)


def refused_after(number: int, descriptor: int, data: memoryview, at: int, really: Writer = os.pwrite) -> int:
    """Fail writes beyond half of the first segment."""
    if SEGMENT // 2 < at < SEGMENT:
        raise OSError(number, os.strerror(number))
    return really(descriptor, data, at)


def granted(_descriptor: int, _operation: int) -> None:
    """Grant the lock to every caller."""


FAKES = {
    "flock-lies": (fcntl, "flock", granted),
    "fsync-fails": (os, "fsync", fails_for_weights),
    "eio-on-write": (os, "pwrite", functools.partial(refused_after, errno.EIO)),
    "quota": (os, "pwrite", functools.partial(refused_after, errno.EDQUOT)),
}


def main(folder: Path, words: list[str]) -> None:
    for name in FAKES.keys() & set(words):
        where, attribute, fake = FAKES[name]
        setattr(where, attribute, fake)
    said: list[str] = []
    ended: dict[str, object] = {"code": 0, "message": "", "hint": ""}
    pace = TransferSettings(connections=4, segment_bytes=SEGMENT, backoff_s=0.001, stall_s=60, retries=1)
    if "impatient" in words:
        pace = dataclasses.replace(pace, stall_s=0.5)
    try:
        manifest = ModelFolder(folder).manifest() or hub.connect().resolve(REPO, None, backoff_s=0.001)
        pull(manifest, folder, PullReporter(said.append, lambda *_: None, pace))
    except DeployError as error:
        ended = {"code": error.exit_code, "message": error.message, "hint": error.hint}
    except Exception:  # noqa: BLE001  what a user would see as our bug
        ended = {"code": 1, "message": traceback.format_exc(), "hint": ""}
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and PRIVATE_FOLDER not in path.parts
    }
    print(json.dumps({**ended, "said": said, "files": files}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
