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


def changed(folder: Path, name: str, **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write(name: str, content: str | bytes):
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def index(weight_map: object):
    return write(INDEX, json.dumps({"weight_map": weight_map}))


def second_shard(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")


DAMAGES = {
    "config missing": lambda folder: (folder / "config.json").unlink(),
    "config empty": write("config.json", ""),
    "config is a list": write("config.json", "[]"),
    "config not json": write("config.json", "{"),
    "config key twice": write("config.json", '{"a": 1, "a": 2}'),
    "config NaN": write("config.json", '{"a": NaN}'),
    "config nested too deeply": write("config.json", '{"a":' * 100_000),
    "config not utf-8": write("config.json", b'{"\xff": 1}'),
    "config is html": write("config.json", "<!DOCTYPE html>"),
    "config is a pointer": write("config.json", "version https://git-lfs.github.com/spec/v1\n"),
    "config asks for code": lambda folder: changed(folder, "config.json", auto_map={"AutoModel": "m.M"}),
    "text_config is text": lambda folder: changed(folder, "config.json", text_config="x"),
    "quantization is a list": lambda folder: changed(folder, "config.json", quantization_config=[1]),
    "quantizations disagree": lambda folder: changed(
        folder, "hf_quant_config.json", quantization={"quant_algo": "FP8"}
    ),
    "quant_algo missing": lambda folder: changed(folder, "hf_quant_config.json", quantization={}),
    "quant_algo is a number": lambda folder: changed(
        folder, "hf_quant_config.json", quantization={"quant_algo": 4}
    ),
    "python file": write("modeling.py", "print()"),
    "pickled weights": write("pytorch_model.bin", b"\x80\x04"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "index without a map": write(INDEX, "{}"),
    "index of numbers": index({"a": 1}),
    "index leaves the folder": index({"a": "../model.safetensors"}),
    "index names another kind": index({"a": "model.bin"}),
    "shard missing": index({"a": "model-00001-of-00002.safetensors"}),
    "index names a tensor that is not there": index({"a": "model.safetensors"}),
    "index with a tensor that no terminal should get": index({"a\x1b[2J": "model.safetensors"}),
    "index with a shard that no terminal should get": index({"a": "\x1b[2J.safetensors"}),
    "quant_algo that no terminal should get": lambda folder: changed(
        folder, "hf_quant_config.json", quantization={"quant_algo": "\x1b[2J"}
    ),
    "tensor in two shards": second_shard,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_one_line(sound, tmp_path, damage):
    folder = tmp_path / "tiny"
    shutil.copytree(sound, folder)
    damage(folder)
    with pytest.raises(IntegrityError) as caught:
        read_checkpoint(folder)
    assert str(folder) in caught.value.message
    assert caught.value.message.isprintable()


def test_a_sound_one_is_read(sound):
    found = read_checkpoint(sound)
    assert (found.producer, found.quantization["quant_algo"]) == ("modelopt 0.42.0", "NVFP4_AWQ")
    assert found.files.keys() == found.tensors.keys()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(IntegrityError, match="not a folder of weights"):
        read_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "hint"), [("a;reboot.bin", "rm '{folder}/a;reboot.bin'"), ("a\x1b[2J\n.bin", "ls -lb {folder}")]
)
def test_a_name_that_somebody_else_chose_is_no_command_in_a_hint(sound, tmp_path, name, hint):
    folder = tmp_path / "tiny"
    shutil.copytree(sound, folder)
    (folder / name).touch()
    with pytest.raises(IntegrityError, match="could run code") as caught:
        read_checkpoint(folder)
    assert caught.value.hint == hint.format(folder=folder)
    assert caught.value.message.isprintable()


def test_a_shard_with_a_name_that_no_terminal_should_get(sound, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(sound, folder)
    (folder / "a\x1b[2J\n.safetensors").write_bytes(b"123")
    with pytest.raises(IntegrityError, match="3 bytes are no safetensors file") as caught:
        read_checkpoint(folder)
    assert caught.value.message.isprintable()
