"""A folder that is pulled from a hub on this machine."""

from dataclasses import replace
from pathlib import Path

from deckard_deploy.weights import hub as hub_module
from deckard_deploy.weights.folder import PRIVATE_FOLDER
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.transfer import TransferSettings
from tests.support.hub_server import REPO, Hub

BIG = "model.safetensors"
PACE = TransferSettings(connections=4, segment_bytes=256 << 10, backoff_s=0.001, stall_s=60, retries=3)
# For servers that stall; elsewhere a busy machine must not look like one.
IMPATIENT = replace(PACE, stall_s=0.5)


class PullFolder:
    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder, self.said = hub, folder, list[str]()

    def pull(self, pace: TransferSettings = PACE) -> int:
        manifest = hub_module.connect().resolve(REPO, None, backoff_s=0.001)
        return pull(manifest, self.folder, PullReporter(self.said.append, lambda *_: None, pace))

    def assert_right(self) -> None:
        found = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and PRIVATE_FOLDER not in path.parts
        }
        assert found == {name: data for name, data in self.hub.files.items() if name != "tool.py"}
        assert not (self.folder / PRIVATE_FOLDER / "parts").exists()
