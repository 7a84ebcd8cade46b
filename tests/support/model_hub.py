"""The hub of the weights tests, with the built-in models' repositories on it: any repository gives the same files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Hub, content, running

BIG = "model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    served = Hub({"config.json": b'{"a": 1}\n', BIG: content(300_000)})
    with running(served):
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "state"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.chdir(tmp_path)
        yield served
