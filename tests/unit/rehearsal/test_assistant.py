"""The tiny drafter: the same bytes each time, three kinds, and narrower than its target."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from deckard_deploy.rehearsal import gemma4, layers
from deckard_deploy.rehearsal.assistant import HIDDEN, Kind, write

KINDS: tuple[Kind, ...] = ("good", "short", "random")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_write_the_same_bytes(tmp_path: Path, kind: Kind) -> None:
    assert contents(write(tmp_path / "one", kind=kind)) == contents(write(tmp_path / "two", kind=kind))


def test_other_kind_replaces_drafter(tmp_path: Path) -> None:
    files = {kind: contents(write(tmp_path / "drafter", kind=kind))["model.safetensors"] for kind in KINDS}
    assert len(set(files.values())) == len(KINDS)


def test_drafter_is_narrower_and_reads_target_cache(tmp_path: Path) -> None:
    config = json.loads((write(tmp_path / "drafter") / "config.json").read_text())
    target = json.loads((gemma4.write(tmp_path / "target") / "config.json").read_text())["text_config"]
    text = config["text_config"]
    assert config["backbone_hidden_size"] == target["hidden_size"] != text["hidden_size"] == HIDDEN
    assert text["num_kv_shared_layers"] == text["num_hidden_layers"]
    for key in (
        "num_attention_heads",
        "num_key_value_heads",
        "num_global_key_value_heads",
        "head_dim",
        "vocab_size",
    ):
        assert text[key] == target[key]
    tensors = load_file(tmp_path / "drafter" / "model.safetensors")
    assert tensors["pre_projection.weight"].shape == (HIDDEN, 2 * layers.HIDDEN)
    assert not any("k_proj" in name or "v_proj" in name for name in tensors)
