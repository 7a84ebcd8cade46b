"""Malformed checkpoints, locks, records and facts: files that others made, each refused in a line.

What a folder of weights says of itself is a matter of integrity (4); a file that the user names is input (2).
"""

import json

from tests.support.malformed_input import MalformedInput
from tests.support.malformed_safetensors import MALFORMED, ONE, malformed_file

WEIGHTS = malformed_file(ONE, b"1234")
LOCK = {"version": 1, "models": {}, "images": {}, "patches": {}, "plugins": {}}
FILE = {"path": "config.json", "size": 1, "sha256": "0" * 64}


def _checkpoint(
    name: str, *, says: str, config: str | bytes = "{}", weights: bytes = WEIGHTS, **more: bytes
) -> MalformedInput:
    files = {
        "config.json": config if isinstance(config, bytes) else config.encode(),
        "model.safetensors": weights,
    }
    return MalformedInput(
        id=f"checkpoint-{name}", arguments=("inspect", "./"), files={**files, **more}, says=says, code=4
    )


def _lock(name: str, text: str | dict[str, object], *, says: str) -> MalformedInput:
    content = text if isinstance(text, str) else json.dumps({**LOCK, **text})
    return MalformedInput(
        id=f"lock-{name}", arguments=("render", "command", "-p", "spark", "--locked"),
        files={"deckard.lock": content.encode()}, says=says,
    )  # fmt: skip


def _record(name: str, text: str, *, says: str) -> MalformedInput:
    return MalformedInput(
        id=f"record-{name}", arguments=("bench", "show", "./record.json"), files={"record.json": text.encode()},
        says=says, code=4,
    )  # fmt: skip


def _facts(name: str, text: str, *, says: str) -> MalformedInput:
    return MalformedInput(
        id=f"facts-{name}", arguments=("profiles", "here", "--facts", "facts.json"),
        files={"facts.json": text.encode()}, says=says,
    )  # fmt: skip


def _model(files: object, **changes: object) -> dict[str, object]:
    return {"models": {"deckard-31b": {"repo": "a/b", "commit": "0" * 40, "files": files, **changes}}}


HEADERS = tuple(
    _checkpoint(f"header-{name.replace(' ', '-')}", weights=content, says="model.safetensors: ")
    for name, content in MALFORMED.items()
)
CONFIGS = (
    _checkpoint("config-empty", config="", says="config.json: empty"),
    _checkpoint("config-list", config="[]", says="a JSON list"),
    _checkpoint("config-number", config="3", says="a JSON int"),
    _checkpoint("config-null", config="null", says="a JSON NoneType"),
    _checkpoint("config-cut", config='{"a": ', says="not JSON"),
    _checkpoint("config-comment", config="{} // gemma", says="not JSON"),
    _checkpoint("config-twice", config='{"a": 1, "a": 2}', says="duplicate key 'a'"),
    _checkpoint("config-nan", config='{"a": NaN}', says="NaN is no JSON number"),
    _checkpoint("config-infinity", config='{"a": -Infinity}', says="-Infinity is no JSON number"),
    _checkpoint("config-deep", config='{"a":' * 100_000, says="nested too deeply"),
    _checkpoint("config-digits", config='{"a": ' + "9" * 5000 + "}", says="config.json: not JSON"),
    _checkpoint("config-latin-1", config=b'{"\xff": 1}', says="not UTF-8"),
    _checkpoint("config-utf-16", config="{}".encode("utf-16"), says="not UTF-8"),
    _checkpoint("config-html", config="<!DOCTYPE html>", says="an HTML page"),
    _checkpoint("config-pointer", config="version https://git-lfs.github.com/spec/v1\n", says="a Git LFS pointer"),
    _checkpoint("config-zeros", config=bytes(64), says="nothing but zeros"),
    _checkpoint("config-code", config='{"auto_map": {"AutoModel": "m.M"}}', says="auto_map asks for code"),
    _checkpoint("config-text", config='{"text_config": "x"}', says="text_config is not an object"),
    _checkpoint("config-vision", config='{"vision_config": [1]}', says="vision_config is not an object"),
    _checkpoint("config-quantization", config='{"quantization_config": [1]}', says="quantization_config is not"),
    _checkpoint("quantization-list", says="hf_quant_config.json", **{"hf_quant_config.json": b"[]"}),
    _checkpoint("quantization-nameless", says="quant_algo is missing", **{"hf_quant_config.json": b"{}"}),
    _checkpoint(
        "quantization-number", says="quant_algo is missing",
        **{"hf_quant_config.json": b'{"quantization": {"quant_algo": 4}}'},
    ),
    _checkpoint(
        "quantization-other", config='{"quantization_config": {"quant_algo": "FP8"}}', says="and config.json says FP8",
        **{"hf_quant_config.json": b'{"quantization": {"quant_algo": "NVFP4"}}'},
    ),
    _checkpoint("python", says="modeling.py could run code", **{"modeling.py": b""}),
    _checkpoint("pickle", says="pytorch_model.bin could run code", **{"pytorch_model.bin": b"\x80\x04"}),
    _checkpoint("torch", says="weights.pt could run code", **{"weights.pt": b"PK"}),
    _checkpoint("twice", says="tensor w is in model.safetensors too", **{"other.safetensors": WEIGHTS}),
    _checkpoint("index-empty", says="index.json", **{"model.safetensors.index.json": b"{}"}),
    _checkpoint("index-numbers", says="index.json", **{"model.safetensors.index.json": b'{"weight_map": {"w": 1}}'}),
    _checkpoint(
        "index-path", says="index.json",
        **{"model.safetensors.index.json": b'{"weight_map": {"w": "../model.safetensors"}}'},
    ),
    _checkpoint(
        "index-kind", says="index.json", **{"model.safetensors.index.json": b'{"weight_map": {"w": "model.bin"}}'}
    ),
    _checkpoint(
        "index-shard", says="is listed, and is not there",
        **{"model.safetensors.index.json": b'{"weight_map": {"w": "model-00001-of-00002.safetensors"}}'},
    ),
    _checkpoint(
        "index-tensor", says="is not in both",
        **{"model.safetensors.index.json": b'{"weight_map": {"v": "model.safetensors"}}'},
    ),
    MalformedInput(
        id="checkpoint-missing", arguments=("inspect", "./nothing"), says="./nothing: no such folder", code=2
    ),
    MalformedInput(
        id="checkpoint-file", arguments=("inspect", "./x"), files={"x": b""}, says="./x: no such folder", code=2
    ),
    MalformedInput(id="checkpoint-nothing", arguments=("inspect", "./"), says="config.json", code=4),
)  # fmt: skip
LOCKS = (
    _lock("empty", "", says="deckard.lock: "),
    _lock("text", "spark", says="deckard.lock: "),
    _lock("list", "[]", says="deckard.lock: "),
    _lock("cut", '{"version": 1', says="deckard.lock: "),
    _lock("version", {"version": 2}, says="version"),
    _lock("version-text", {"version": "1"}, says="version"),
    _lock("key", {"model": {}}, says="model: Extra inputs"),
    _lock("models", {"models": []}, says="models: "),
    _lock("image-short", {"images": {"a:1": "sha256:00"}}, says="images.a:1: "),
    _lock("image-upper", {"images": {"a:1": "sha256:" + "A" * 64}}, says="images.a:1: "),
    _lock("image-number", {"images": {"a:1": 1}}, says="images.a:1: "),
    _lock("patch", {"patches": {"vllm-0.19.1": {"eagle": "0" * 63}}}, says="patches.vllm-0.19.1.eagle: "),
    _lock("patch-list", {"patches": {"vllm-0.19.1": []}}, says="patches.vllm-0.19.1: "),
    _lock("plugin", {"plugins": {"nvfp4-awq": "sha256:" + "0" * 64}}, says="plugins.nvfp4-awq: "),
    _lock("commit", _model([FILE], commit="main"), says="models.deckard-31b.commit: "),
    _lock("path-up", _model([{**FILE, "path": "../x"}]), says="models.deckard-31b.files.0"),
    _lock("path-absolute", _model([{**FILE, "path": "/etc/passwd"}]), says="models.deckard-31b.files.0"),
    _lock("size", _model([{**FILE, "size": -1}]), says="models.deckard-31b.files.0.size: "),
    _lock("hash", _model([{**FILE, "sha256": "x"}]), says="models.deckard-31b.files.0"),
    _lock("no-hash", _model([{"path": "config.json", "size": 1}]), says="models.deckard-31b.files.0"),
    _lock("file-key", _model([{**FILE, "url": "http://x"}]), says="models.deckard-31b.files.0.url: "),
    MalformedInput(
        id="lock-nothing",
        arguments=("render", "command", "-p", "spark", "--locked"),
        files={"deckard.lock": json.dumps(LOCK).encode()},
        says="not in deckard.lock: model deckard-31b",
        code=4,
    ),
    MalformedInput(
        id="lock-missing",
        arguments=("render", "command", "-p", "spark", "--locked"),
        says="deckard.lock",
        code=4,
    ),
)
RECORDS = (
    _record("empty", "", says="record.json"),
    _record("text", "fast", says="record.json"),
    _record("list", "[]", says="record.json"),
    _record("cut", "{", says="record.json"),
    _record("nothing", "{}", says="record.json"),
    _record("nan", '{"id": NaN}', says="record.json"),
    _record("kind", '{"kind": "rumour"}', says="record.json"),
    _record("deep", "[" * 100_000, says="record.json"),
    MalformedInput(id="record-missing", arguments=("bench", "show", "./nothing.json"), says="nothing.json"),
    MalformedInput(id="record-folder", arguments=("bench", "show", "./"), says=".: Is a directory"),
    MalformedInput(id="record-id", arguments=("bench", "show", "20260101-000000"), says="20260101-000000"),
    MalformedInput(id="record-path", arguments=("bench", "show", "/dev/null/x"), says="/dev/null/x"),
    MalformedInput(
        id="record-compare", arguments=("bench", "compare", "seed", "./nothing.json"), says="nothing.json"
    ),
    MalformedInput(id="record-table", arguments=("bench", "compare", "sead", "seed"), says="sead"),
    MalformedInput(id="record-report", arguments=("bench", "report", "./nothing.json"), says="nothing.json"),
)
FACTS = (
    _facts("empty", "", says="facts.json"),
    _facts("text", "fast", says="facts.json"),
    _facts("list", "[]", says="facts.json"),
    _facts("cut", "{", says="facts.json"),
    _facts("nothing", "{}", says="no word of a GPU"),
    _facts("no-gpu", '{"architecture": "x86_64"}', says="no word of a GPU"),
    _facts("key", '{"surprise": 1}', says="facts.json"),
    _facts("deep", "[" * 100_000, says="facts.json"),
    MalformedInput(
        id="facts-missing", arguments=("profiles", "here", "--facts", "nothing.json"), says="nothing.json"
    ),
    MalformedInput(
        id="facts-folder", arguments=("profiles", "here", "--facts", "./"), says=".: Is a directory"
    ),
)

CASES = (*HEADERS, *CONFIGS, *LOCKS, *RECORDS, *FACTS)
