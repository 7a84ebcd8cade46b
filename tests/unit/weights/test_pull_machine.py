"""Pulls, faults, interrupts, damage and new commits in any order: a final name means the right bytes."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deckard_deploy.errors import DeployError
from deckard_deploy.weights.folder import PRIVATE_FOLDER
from deckard_deploy.weights.manifest import Manifest, RemoteFile
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.transfer import TransferSettings
from tests.support.hub_server import COMMIT, REPO, Hub, content, flipped, running
from tests.support.pull_sandbox import BIG, half, shifted, status, times, whole_file

pytestmark = pytest.mark.slow
EXAMPLES = os.environ.get("DECKARD_FUZZ_EXAMPLES")  # for a long run; tests/campaigns/fuzz_weights.py says how
PACE = TransferSettings(connections=3, segment_bytes=64 << 10, backoff_s=0.001, retries=2, stall_s=10)
FAULTS = {
    "cut": half,
    "bit": flipped,
    "whole": whole_file,
    "range": shifted,
    "503": status(503),
    "403": status(403),
}


class Pulls(RuleBasedStateMachine):
    """The model: the bytes at the hub, and whether the file was changed since the last pull."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="pulls-"))
        self.folder, self.seed, self.touched = self.root / "m", 0, False
        self.hub = Hub({BIG: content(200_001)})
        self.serving = running(self.hub)
        self.serving.__enter__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("HF_ENDPOINT", self.hub.url)
        self.patch.setenv("HF_TOKEN", "hf_secret")
        self.patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(self.root / "cache"))

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.patch.undo()
            self.serving.__exit__(None, None, None)
            shutil.rmtree(self.root)

    def manifest(self) -> Manifest:
        (entry,) = self.hub.siblings()
        sha256 = dict(entry["lfs"])["sha256"]  # type: ignore[call-overload]
        file = RemoteFile(path=BIG, size=len(self.hub.files[BIG]), sha256=sha256)
        return Manifest(repo=REPO, commit=COMMIT[:-1] + str(self.seed % 10), files=(file,))

    def final(self) -> bytes | None:
        path = self.folder / BIG
        return path.read_bytes() if path.exists() else None

    @rule()
    def pull_well(self) -> None:
        self.hub.fault = lambda *_: False
        pull(self.manifest(), self.folder, PullReporter(lambda _: None, lambda *_: None, PACE))
        assert self.final() == self.hub.files[BIG]
        assert not (self.folder / PRIVATE_FOLDER / "parts").exists()
        self.touched = False

    @rule(name=st.sampled_from(sorted(FAULTS)), count=st.sampled_from([1, 2, 100]))
    def pull_badly(self, name: str, count: int) -> None:
        self.hub.fault = times(count, FAULTS[name])
        try:
            pull(self.manifest(), self.folder, PullReporter(lambda _: None, lambda *_: None, PACE))
        except DeployError as error:
            assert error.hint  # noqa: PT017  any other exception fails the test
        else:
            assert self.final() == self.hub.files[BIG]
            self.touched = False

    @rule(after=st.integers(0, 200_000))
    def interrupt(self, after: int) -> None:
        self.hub.fault = lambda *_: False

        def on_bytes(done: int, _total: int) -> None:
            if done > after:
                raise KeyboardInterrupt

        try:
            pull(self.manifest(), self.folder, PullReporter(lambda _: None, on_bytes, PACE))
        except KeyboardInterrupt:
            return
        self.touched = False

    @rule()
    def commit(self) -> None:
        """Give the hub another file; the old one stays until a pull."""
        self.seed += 1
        self.hub.files[BIG] = content(150_000 + self.seed, seed=self.seed)
        self.touched = True

    @precondition(lambda self: (self.folder / BIG).exists())
    @rule(place=st.integers(0, 100_000), keep=st.booleans())
    def damage(self, place: int, keep: bool) -> None:  # noqa: FBT001  hypothesis passes by name
        path = self.folder / BIG
        before, data = path.stat(), bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        if keep:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.touched = True

    @precondition(lambda self: (self.folder / PRIVATE_FOLDER / "parts").exists())
    @rule(place=st.integers(0, 2000), name=st.sampled_from(["*.part", "*.journal"]))
    def damage_parts(self, place: int, name: str) -> None:
        for path in (self.folder / PRIVATE_FOLDER / "parts").glob(name):
            with path.open("r+b") as file:
                file.seek(place)
                file.write(b"?")

    @invariant()
    def a_name_means_the_right_bytes(self) -> None:
        if hasattr(self, "folder") and not self.touched:
            assert self.final() in (None, self.hub.files[BIG])


Pulls.TestCase.settings = settings(
    max_examples=int(EXAMPLES or 40), stateful_step_count=10, deadline=None, derandomize=EXAMPLES is None
)
TestPulls = Pulls.TestCase
