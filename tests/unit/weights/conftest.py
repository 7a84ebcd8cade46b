"""A hub on this machine, and a folder that is pulled from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Hub, content, running
from tests.support.pull_folder import BIG, PullFolder


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


@pytest.fixture
def pull_folder(hub: Hub, tmp_path: Path) -> PullFolder:
    return PullFolder(hub, tmp_path / "models" / "m")
