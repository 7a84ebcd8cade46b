"""The resumption of an unfinished file after a kill, and a state machine of the faults of a transfer."""

import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deckard_deploy.errors import DeployError
from deckard_deploy.weights.folder import PRIVATE_FOLDER
from deckard_deploy.weights.manifest import Manifest, RemoteFile
from deckard_deploy.weights.partial import Partial
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.transfer import TransferSettings
from tests.support.hub_server import COMMIT, REPO, Answer, Hub, content, running

SEGMENT = 1000
DATA = content(3500)
FILE = RemoteFile(path="model.safetensors", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())


def open_partial(folder: Path, segment_bytes: int = SEGMENT) -> Partial:
    return Partial(folder, FILE, segment_bytes=segment_bytes)


def write_partial(folder: Path) -> Path:
    partial = open_partial(folder)
    partial.remember_etag('"tag"')
    partial.append(0, memoryview(DATA[:1000]))
    partial.append(1, memoryview(DATA[1000:1300]))
    partial.append(3, memoryview(DATA[3000:3500]))
    partial.close()
    return folder


def test_partial_resumes_from_journal(tmp_path):
    partial = open_partial(write_partial(tmp_path))
    assert (partial.done(), partial.contiguous_until(0), partial.unfinished(), partial.etag) == (
        1800,
        1300,
        [1, 2],
        '"tag"',
    )
    assert partial.read(0, 1300) == DATA[:1300]
    partial.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda part, _: part.write_bytes(b"short"),
        lambda part, _: part.unlink(),
        lambda _, journal: journal.write_bytes(b""),
        lambda _, journal: journal.write_bytes(b"\xff" * journal.stat().st_size),
        lambda _, journal: journal.write_bytes(journal.read_bytes()[:-8] + b"\xff" * 8),
        lambda _, journal: journal.write_bytes(journal.read_bytes() + b"x"),
        lambda _, journal: journal.write_bytes(b"[]".ljust(512) + journal.read_bytes()[512:]),
    ],
)
def test_damaged_partial_starts_from_zero(tmp_path, damage):
    write_partial(tmp_path)
    damage(tmp_path / f"{FILE.digest}.part", tmp_path / f"{FILE.digest}.journal")
    partial = open_partial(tmp_path)
    assert (partial.done(), partial.etag) == (0, "")
    partial.close()


def test_other_segment_size_discards_journal(tmp_path):
    partial = open_partial(write_partial(tmp_path), segment_bytes=1001)
    assert partial.done() == 0
    partial.close()


@pytest.mark.parametrize("etag", ['W/"weak"', "unquoted", '"' + "x" * 300 + '"', '"ü"', '"\x01"'])
def test_etag_unusable_for_ranges_is_dropped(tmp_path, etag):
    partial = open_partial(tmp_path)
    partial.remember_etag(etag)
    assert partial.etag == ""
    partial.close()


def test_long_etag_does_not_corrupt_positions(tmp_path):
    partial = open_partial(write_partial(tmp_path))
    for length in range(2, 300):
        partial.remember_etag('"' * length)
        continued = open_partial(tmp_path)
        assert (continued.done(), continued.etag) == (1800, partial.etag)
        continued.close()
    partial.close()


VICTIM = """
import sys
from pathlib import Path
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.manifest import Manifest
from deckard_deploy.weights.transfer import TransferSettings
manifest = Manifest.model_validate_json(sys.argv[1])
pace = TransferSettings(connections=1, segment_bytes=1 << 20, stall_s=30)
pull(manifest, Path(sys.argv[2]), PullReporter(print, lambda *_: None, pace))
"""


@pytest.mark.parametrize("after", [0, 1 << 20, 1_999_999])
def test_killed_pull_resumes(tmp_path, monkeypatch, after):
    """The server stops after `after` bytes, so that the puller is killed at a known position."""
    data = content(2_000_000)
    hub = Hub({"model.safetensors": data})
    file = RemoteFile(path="model.safetensors", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    manifest = Manifest(repo=REPO, commit=COMMIT, files=(file,))
    folder = tmp_path / "m"
    command = [sys.executable, "-c", VICTIM, manifest.model_dump_json(), str(folder)]

    def kill_after(answer: Answer, _name: str, start: int, end: int) -> bool:
        answer.head(data, start, end)
        answer.wfile.write(data[start : min(end, after)])
        answer.wfile.flush()
        if after < end:
            while after and (not journal(folder) or journal(folder) < after):
                answer.wait(0.005)
            process.send_signal(signal.SIGKILL)
        return True

    def journal(folder: Path) -> int:
        path = folder / PRIVATE_FOLDER / "parts" / f"{file.digest}.journal"
        slots = path.read_bytes()[512:] if path.exists() else b""
        return sum(int.from_bytes(slots[place : place + 8], "little") for place in range(0, len(slots), 8))

    hub.fault = kill_after
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        process = subprocess.Popen(command)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert not (folder / "model.safetensors").exists()
        hub.fault = lambda *_: False
        asked = hub.served("model.safetensors")
        pull(
            manifest,
            folder,
            PullReporter(
                lambda _: None, lambda *_: None, TransferSettings(connections=1, segment_bytes=1 << 20)
            ),
        )
        assert hub.served("model.safetensors") - asked == len(data) - after
    assert (folder / "model.safetensors").read_bytes() == data
    assert not (folder / PRIVATE_FOLDER / "parts").exists()


class Transfers(RuleBasedStateMachine):
    """A file with its final name is right after any fault of the server and any damage in the folder."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "m"
        self.data = content(300_000)
        self.hub = Hub({"model.safetensors": self.data})
        self.running = running(self.hub)
        self.running.__enter__()
        self.manifest = Manifest(
            repo=REPO,
            commit=COMMIT,
            files=(
                RemoteFile(
                    path="model.safetensors", size=300_000, sha256=hashlib.sha256(self.data).hexdigest()
                ),
            ),
        )
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("HF_ENDPOINT", self.hub.url)
        self.sound = True

    def teardown(self) -> None:
        self.patch.undo()
        self.running.__exit__(None, None, None)
        shutil.rmtree(self.root)

    @rule(
        kind=st.sampled_from(["cut", "flip", "whole", "wrong range", "500", "empty"]),
        place=st.floats(0, 1),
        times=st.integers(1, 6),
    )
    def pull_with_a_fault(self, kind: str, place: float, times: int) -> None:
        left = [times]

        def fault(answer: Answer, _name: str, start: int, end: int) -> bool:
            left[0] -= 1
            if left[0] < 0:
                return False
            middle = start + int((end - start) * place)
            if kind == "500":
                answer.reply(500, b"", {})
            elif kind == "whole":
                answer.reply(200, self.data, {})
            elif kind == "wrong range":
                answer.head(self.data, start, end, Content_Range=f"bytes {start + 1}-{end}/300000")
            else:
                answer.head(self.data, start, end)
                answer.wfile.write(self.data[start:middle])
                if kind == "flip":
                    answer.wfile.write(bytes([self.data[middle % 300_000] ^ 1]) + self.data[middle + 1 : end])
                else:
                    answer.cut()
            return True

        self.hub.fault = fault
        self._pull()

    @rule()
    def pull_from_a_sound_server(self) -> None:
        self.hub.fault = lambda *_: False
        assert self._pull()
        assert (self.folder / "model.safetensors").read_bytes() == self.data
        assert not (self.folder / PRIVATE_FOLDER / "parts").exists()

    @rule(place=st.integers(0, 299_999))
    def rot(self, place: int) -> None:
        for path in [*self.folder.glob("*.safetensors"), *self.folder.glob(f"{PRIVATE_FOLDER}/parts/*.part")]:
            with path.open("r+b") as file:
                file.seek(place)
                byte = file.read(1)
                file.seek(place)
                file.write(bytes([byte[0] ^ 1]) if byte else b"")
            self.sound = self.sound and path.suffix == ".part"

    @rule()
    def lose_the_record(self) -> None:
        (self.folder / PRIVATE_FOLDER / "record.json").unlink(missing_ok=True)

    def _pull(self) -> bool:
        pace = TransferSettings(connections=2, segment_bytes=100_000, backoff_s=0, retries=3)
        try:
            pull(self.manifest, self.folder, PullReporter(lambda _: None, lambda *_: None, pace))
        except DeployError:
            return False
        finally:
            self.sound = True
        return True

    @invariant()
    def a_final_name_is_right(self) -> None:
        path = self.folder / "model.safetensors"
        assert not self.sound or not path.exists() or path.read_bytes() == self.data


Transfers.TestCase.settings = settings(
    max_examples=12, stateful_step_count=8, deadline=None, derandomize=True
)
TestTransfers = Transfers.TestCase
