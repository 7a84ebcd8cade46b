"""A checkpoint that is read from a hub without its weights."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import DeployError
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.weights import hub as hub_address
from deckard_deploy.weights.checkpoint import Checkpoint, read_checkpoint
from deckard_deploy.weights.remote_checkpoint import read_remote_checkpoint
from tests.support.hub_server import Answer, Hub, running

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma4.write(tmp_path_factory.mktemp("tiny") / "tiny", quantization="nvfp4_awq")


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in tiny.iterdir() if path.is_file()}
    served = Hub(files)
    with running(served):
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield served


def read(folder: Path) -> Checkpoint:
    manifest = hub_address.connect().resolve("owner/model", None)
    return read_remote_checkpoint(manifest, folder, lambda _: None)


def test_headers_are_read_without_the_weights(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    found = read(tmp_path / "small")
    local = read_checkpoint(tiny)
    assert found.tensors == local.tensors
    assert found.config == local.config
    assert hub.served(WEIGHTS) < len(hub.files[WEIGHTS]) // 10
    assert not (tmp_path / "small" / WEIGHTS).exists()


def ignore_range(answer: Answer, name: str, _start: int, _end: int) -> bool:
    if name != WEIGHTS:
        return False
    del answer.headers["Range"]
    answer.send_bytes(answer.hub.files[name], 0, len(answer.hub.files[name]))
    return True


def test_server_without_ranges_is_not_read_whole(hub: Hub, tmp_path: Path) -> None:
    hub.files[WEIGHTS] += b"\0" * (8 << 20)  # more than a connection buffers
    hub.fault = ignore_range
    with pytest.raises(DeployError):  # the header describes fewer bytes
        read(tmp_path / "small")
    assert hub.sent < len(hub.files[WEIGHTS])


HOSTILE = {
    "no safetensors": lambda files: files.pop(WEIGHTS),
    "only pickles": lambda files: files.update({"pytorch_model.bin": files.pop(WEIGHTS)}),
    "endless header": lambda files: files.update({WEIGHTS: struct.pack("<Q", 2**63) + b"x" * 100}),
    "header past the end": lambda files: files.update({WEIGHTS: struct.pack("<Q", 1000) + b"{}"}),
    "no header": lambda files: files.update({WEIGHTS: b""}),
    "short file": lambda files: files.update({WEIGHTS: b"abc"}),
    "header is no JSON": lambda files: files.update({WEIGHTS: struct.pack("<Q", 4) + b"abcd"}),
    "code asked for": lambda files: files.update(
        {"config.json": files["config.json"].replace(b"{", b'{"auto_map": {"AutoModel": "m.M"},', 1)}
    ),
    "no config": lambda files: files.pop("config.json"),
    "config is a page": lambda files: files.update({"config.json": b"<!DOCTYPE html>"}),
    "index leads out": lambda files: files.update(
        {"model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd.safetensors"}}'}
    ),
    "index names a missing file": lambda files: files.update(
        {"model.safetensors.index.json": b'{"weight_map": {"a": "other.safetensors"}}'}
    ),
    "file name leads out": lambda files: files.update({"../config.json": b"{}"}),
    "absolute file name": lambda files: files.update({"/etc/passwd": b""}),
    "huge small file": lambda files: files.update({"notes.txt": b" " * (65 << 20)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_repository_is_one_line(hub: Hub, tmp_path: Path, name: str) -> None:
    HOSTILE[name](hub.files)
    with pytest.raises(DeployError) as caught:
        read(tmp_path / "small")
    assert "\n" not in caught.value.message
    assert not (tmp_path / "passwd").exists()
