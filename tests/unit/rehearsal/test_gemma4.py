import json
from pathlib import Path

import pytest

from deckard_deploy.rehearsal.gemma4 import Quantization, write
from deckard_deploy.weights.safetensors_header import read_header

QUANTIZATIONS: tuple[Quantization, ...] = ("none", "nvfp4", "nvfp4_awq", "nvfp4_svd")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_two_runs_write_the_same_bytes(tmp_path, quantization: Quantization):
    one = contents(write(tmp_path / "one", quantization=quantization))
    other = contents(write(tmp_path / "deep" / "other", quantization=quantization))
    assert one == other
    assert len(one["model.safetensors"]) > 2_000_000


def test_other_quantization_replaces_checkpoint(tmp_path):
    write(tmp_path / "tiny")
    write(tmp_path / "tiny", quantization="nvfp4_awq")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert config["quantization_config"]["quant_algo"] == "NVFP4_AWQ"


def test_other_family_replaces_chat_template_alone(tmp_path):
    large = contents(write(tmp_path / "large"))
    small = contents(write(tmp_path / "small", family="small"))
    assert {name for name in large if large[name] != small[name]} == {
        "chat_template.jinja",
        "tiny-gemma4.json",
    }


def test_other_users_may_read_every_file(tmp_path):
    assert all(path.stat().st_mode & 0o004 for path in write(tmp_path / "tiny").iterdir())


def test_other_form_replaces_checkpoint(tmp_path):
    dense = contents(write(tmp_path / "tiny"))
    experts = contents(write(tmp_path / "tiny", form="experts"))
    assert json.loads(experts["config.json"])["text_config"]["num_experts"] == 4
    assert contents(write(tmp_path / "tiny")) == dense


def test_shared_layers_have_no_keys(tmp_path):
    write(tmp_path / "tiny", form="per-layer")
    tensors = read_header(tmp_path / "tiny" / "model.safetensors")
    keys = [name for name in tensors if "language_model" in name and name.endswith("k_proj.weight")]
    assert len(keys) == 6


def test_form_that_is_not_dense_is_not_packed(tmp_path):
    with pytest.raises(ValueError, match="in BF16 alone"):
        write(tmp_path / "tiny", quantization="nvfp4", form="experts")
