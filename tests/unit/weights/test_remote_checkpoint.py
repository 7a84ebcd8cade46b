"""A checkpoint that is read from a hub without its weights."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import DeployError
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.weights import hub as hub_address
from deckard_deploy.weights import remote_checkpoint
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


def test_same_commit_is_read_again_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    manifest = hub_address.connect().resolve("owner/model", None)
    first = read_remote_checkpoint(manifest, tmp_path / "small", lambda _: None)
    asked = len(hub.requests)
    assert read_remote_checkpoint(manifest, tmp_path / "small", lambda _: None).tensors == first.tensors
    assert len(hub.requests) == asked


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


def with_config(files: dict[str, bytes], name: str = "config.json", **changes: object) -> None:
    """Change keys of a JSON file of the repository."""
    files[name] = json.dumps(json.loads(files[name]) | changes).encode()


def with_tensor(files: dict[str, bytes], header: bytes, data: bytes = b"") -> None:
    """Put a file with this header in place of the weights."""
    files[WEIGHTS] = struct.pack("<Q", len(header)) + header + data


CODE = {"AutoModel": "m.M"}
INDEX = "model.safetensors.index.json"
TENSOR = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'
# A repository's files, made hostile, and a part of the line that refuses them.
HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "no safetensors": (lambda files: files.pop(WEIGHTS), "has no safetensors"),
    "only pickles": (
        lambda files: files.update({"pytorch_model.bin": files.pop(WEIGHTS)}),
        "has no safetensors",
    ),
    "weights in a folder below": (
        lambda files: files.update({f"original/{WEIGHTS}": files.pop(WEIGHTS)}),
        "no safetensors file is there",
    ),
    "pickle named as weights": (lambda files: files.update({WEIGHTS: b"\x80\x04" + b"x" * 100}), "header"),
    "endless header": (
        lambda files: files.update({WEIGHTS: struct.pack("<Q", 2**63) + b"x" * 100}),
        "a header of",
    ),
    "header past the end": (
        lambda files: files.update({WEIGHTS: struct.pack("<Q", 1000) + b"{}"}),
        "a header of 1000 bytes",
    ),
    "no header": (lambda files: files.update({WEIGHTS: b""}), "no safetensors file"),
    "short file": (lambda files: files.update({WEIGHTS: b"abc"}), "no safetensors file"),
    "header is no JSON": (lambda files: with_tensor(files, b"abcd"), "no JSON object"),
    "header with a tensor twice": (
        lambda files: with_tensor(files, TENSOR + b"," + TENSOR[1:] + b"}", b"x"),
        "duplicate key",
    ),
    "header with a hole": (
        lambda files: with_tensor(files, TENSOR.replace(b"[0, 1]", b"[9, 10]") + b"}", b"x"),
        "leaves a hole",
    ),
    "header nested deeply": (lambda files: with_tensor(files, b'{"a":' * 100_000), "nested too deeply"),
    "tensor of absurd size": (
        lambda files: with_tensor(files, TENSOR.replace(b"[1]", b"[18446744073709551615, 8]") + b"}", b"x"),
        "does not fill",
    ),
    "tensor name with an escape": (
        lambda files: with_tensor(files, TENSOR.replace(b'"a"', b'"\\u001b[31m"') + b"}", b"x"),
        "cannot be printed",
    ),
    "code asked for": (lambda files: with_config(files, auto_map=CODE), "auto_map"),
    "code asked for by the vision tower": (
        lambda files: with_config(files, vision_config={"auto_map": CODE}),
        "auto_map",
    ),
    "code asked for within lists": (lambda files: with_config(files, a=[[{"auto_map": CODE}]]), "auto_map"),
    "code asked for by the tokenizer": (
        lambda files: with_config(files, "tokenizer_config.json", auto_map=CODE),
        "auto_map",
    ),
    "code asked for by the processor": (
        lambda files: with_config(files, "processor_config.json", auto_map=CODE),
        "auto_map",
    ),
    "no config": (lambda files: files.pop("config.json"), "config.json"),
    "config is a page": (
        lambda files: files.update({"config.json": b"<!DOCTYPE html>"}),
        "an HTML page",
    ),
    "config is a list": (lambda files: files.update({"config.json": b"[]"}), "JSON list"),
    "config with a key twice": (
        lambda files: files.update({"config.json": b'{"a": 1, "a": 2}'}),
        "duplicate key",
    ),
    "config with an endless number": (
        lambda files: files.update({"config.json": b'{"a": ' + b"9" * 100_000 + b"}"}),
        "not JSON",
    ),
    "quantizations disagree": (
        lambda files: with_config(files, "hf_quant_config.json", quantization={"quant_algo": "\x1b[31m"}),
        "x1b[31m",
    ),
    "index leads out": (
        lambda files: files.update({INDEX: b'{"weight_map": {"a": "../../etc/passwd.safetensors"}}'}),
        "is no name of a safetensors file",
    ),
    "index is absolute": (
        lambda files: files.update({INDEX: b'{"weight_map": {"a": "/etc/passwd.safetensors"}}'}),
        "is no name of a safetensors file",
    ),
    "index names a pickle": (
        lambda files: files.update({INDEX: b'{"weight_map": {"a": "pytorch_model.bin"}}'}),
        "is no name of a safetensors file",
    ),
    "index names a missing file": (
        lambda files: files.update({INDEX: b'{"weight_map": {"a": "other.safetensors"}}'}),
        "is not there",
    ),
    "index names a missing tensor": (
        lambda files: files.update({INDEX: b'{"weight_map": {"a": "model.safetensors"}}'}),
        "is not in both",
    ),
    "tensor in two files": (
        lambda files: files.update({"other.safetensors": files[WEIGHTS]}),
        "too",
    ),
    "file name leads out": (lambda files: files.update({"../config.json": b"{}"}), "inside the folder"),
    "absolute file name": (lambda files: files.update({"/etc/passwd": b""}), "inside the folder"),
    "file name with an escape": (lambda files: files.update({"\x1b[2J.json": b""}), "inside the folder"),
    "file below a file": (lambda files: files.update({"config.json/a": b""}), "both a file and a folder"),
    "huge small file": (lambda files: files.update({"notes.txt": b" " * (65 << 20)}), "no configuration"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_repository_is_one_line(hub: Hub, tmp_path: Path, name: str) -> None:
    make_hostile, refusal = HOSTILE[name]
    make_hostile(hub.files)
    with pytest.raises(DeployError) as caught:
        read(tmp_path / "small")
    assert refusal in caught.value.message
    assert caught.value.message.isprintable()
    assert not (tmp_path / "passwd").exists()


def test_headers_of_all_files_are_bounded(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many files could have a header of the largest size."""
    length = int.from_bytes(hub.files[WEIGHTS][:8], "little")
    monkeypatch.setattr(remote_checkpoint, "_LARGEST_HEADERS", length)
    read(tmp_path / "small")
    monkeypatch.setattr(remote_checkpoint, "_LARGEST_HEADERS", length - 1)
    with pytest.raises(DeployError, match="all headers may have"):
        read(tmp_path / "small")
