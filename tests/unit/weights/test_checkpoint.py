import json
import shutil
from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.weights.checkpoint import INDEX, read_checkpoint


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return gemma4.write(tmp_path_factory.mktemp("sound") / "tiny", quantization="nvfp4_awq")


def edit_json(folder: Path, name: str, **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def overwrite(name: str, content: str | bytes):
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def index(weight_map: object):
    return overwrite(INDEX, json.dumps({"weight_map": weight_map}))


def second_shard(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")


DAMAGES = {
    "config missing": lambda folder: (folder / "config.json").unlink(),
    "config empty": overwrite("config.json", ""),
    "config is a list": overwrite("config.json", "[]"),
    "config not json": overwrite("config.json", "{"),
    "config key twice": overwrite("config.json", '{"a": 1, "a": 2}'),
    "config NaN": overwrite("config.json", '{"a": NaN}'),
    "config nested too deeply": overwrite("config.json", '{"a":' * 100_000),
    "config not utf-8": overwrite("config.json", b'{"\xff": 1}'),
    "config is html": overwrite("config.json", "<!DOCTYPE html>"),
    "config is a pointer": overwrite("config.json", "version https://git-lfs.github.com/spec/v1\n"),
    "config asks for code": lambda folder: edit_json(folder, "config.json", auto_map={"AutoModel": "m.M"}),
    "text_config is text": lambda folder: edit_json(folder, "config.json", text_config="x"),
    "quantization is a list": lambda folder: edit_json(folder, "config.json", quantization_config=[1]),
    "quantizations disagree": lambda folder: edit_json(
        folder, "hf_quant_config.json", quantization={"quant_algo": "FP8"}
    ),
    "quant_algo missing": lambda folder: edit_json(folder, "hf_quant_config.json", quantization={}),
    "quant_algo is a number": lambda folder: edit_json(
        folder, "hf_quant_config.json", quantization={"quant_algo": 4}
    ),
    "python file": overwrite("modeling.py", "print()"),
    "pickled weights": overwrite("pytorch_model.bin", b"\x80\x04"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "index without a map": overwrite(INDEX, "{}"),
    "index of numbers": index({"a": 1}),
    "index leaves the folder": index({"a": "../model.safetensors"}),
    "index names another kind": index({"a": "model.bin"}),
    "shard missing": index({"a": "model-00001-of-00002.safetensors"}),
    "index names a tensor that is not there": index({"a": "model.safetensors"}),
    "index with a tensor that no terminal should get": index({"a\x1b[2J": "model.safetensors"}),
    "index with a shard that no terminal should get": index({"a": "\x1b[2J.safetensors"}),
    "quant_algo that no terminal should get": lambda folder: edit_json(
        folder, "hf_quant_config.json", quantization={"quant_algo": "\x1b[2J"}
    ),
    "tensor in two shards": second_shard,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_is_one_line(sound, tmp_path, damage):
    folder = tmp_path / "tiny"
    shutil.copytree(sound, folder)
    damage(folder)
    with pytest.raises(IntegrityError) as caught:
        read_checkpoint(folder)
    assert str(folder) in caught.value.message
    assert caught.value.message.isprintable()


def test_valid_checkpoint_is_read(sound):
    found = read_checkpoint(sound)
    assert (found.producer, found.quantization["quant_algo"]) == ("modelopt 0.42.0", "NVFP4_AWQ")
    assert found.files.keys() == found.tensors.keys()


def test_missing_checkpoint_folder_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="not a folder of weights"):
        read_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "hint"), [("a;reboot.bin", "rm '{folder}/a;reboot.bin'"), ("a\x1b[2J\n.bin", "ls -lb {folder}")]
)
def test_hint_quotes_untrusted_file_name(sound, tmp_path, name, hint):
    folder = tmp_path / "tiny"
    shutil.copytree(sound, folder)
    (folder / name).touch()
    with pytest.raises(IntegrityError, match="could run code") as caught:
        read_checkpoint(folder)
    assert caught.value.hint == hint.format(folder=folder)
    assert caught.value.message.isprintable()


def test_unprintable_shard_name_is_escaped(sound, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(sound, folder)
    (folder / "a\x1b[2J\n.safetensors").write_bytes(b"123")
    with pytest.raises(IntegrityError, match="3 bytes are no safetensors file") as caught:
        read_checkpoint(folder)
    assert caught.value.message.isprintable()
