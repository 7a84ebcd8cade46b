"""A hub on this machine, and a folder that is pulled from it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deckard_deploy.weights import hub as hub_module
from deckard_deploy.weights.folder import OURS
from deckard_deploy.weights.pull import Puller, pull
from deckard_deploy.weights.transfer import Pace
from tests.unit.weights.hub_server import REPO, Hub, content, running

BIG = "model.safetensors"
PACE = Pace(connections=4, segment_bytes=256 << 10, backoff_s=0.001, stall_s=60, retries=3)
# Only for servers that stall: with other tests a busy machine could look like a stalled server.
IMPATIENT = replace(PACE, stall_s=0.5)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    served = Hub(
        {"config.json": b'{"a": 1}\n', BIG: content(2_000_001), "empty.txt": b"", "tool.py": b"print()\n"}
    )
    with running(served):
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield served


class World:
    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder, self.said = hub, folder, list[str]()

    def pull(self, pace: Pace = PACE) -> int:
        manifest = hub_module.resolve(REPO, None, backoff_s=0.001)
        return pull(manifest, self.folder, Puller(self.said.append, lambda *_: None, pace))

    def assert_right(self) -> None:
        found = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and OURS not in path.parts
        }
        assert found == {name: data for name, data in self.hub.files.items() if name != "tool.py"}
        assert not (self.folder / OURS / "parts").exists()


@pytest.fixture
def world(hub: Hub, tmp_path: Path) -> World:
    return World(hub, tmp_path / "models" / "m")
