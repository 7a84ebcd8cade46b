"""The `inspect` verb."""

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.rehearsal import gemma4
from tests.support.json_output import checked


@pytest.fixture
def folder(tmp_path):
    return gemma4.write(tmp_path / "models" / "tiny-gemma4", quantization="nvfp4_awq")


@pytest.mark.usefixtures("folder")
def test_inspect_model_by_name(tmp_path, capsys):
    assert run(["inspect", "tiny-gemma4", "--state-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "NVFP4_AWQ, by modelopt 0.42.0" in shown
    assert "needs the patches serving_chat, reasoning, modelopt" in shown
    assert "5 sliding_attention: 4 heads, 2 KV heads of 64" in shown


def test_inspect_folder_as_json(folder, capsys):
    assert run(["inspect", str(folder), "--nan", "--json"]) == 0
    shown = checked("inspect", capsys.readouterr().out)
    assert (shown["quantization"], shown["nan_scales"], shown["faults"]) == ("nvfp4_awq", 0, [])


def test_faulty_checkpoint_exits_4(folder, capsys):
    config = folder / "config.json"
    config.write_text(config.read_text().replace("Gemma4ForConditionalGeneration", "Other"))
    assert run(["inspect", str(folder)]) == 4
    assert "fault" in capsys.readouterr().out


def test_malformed_checkpoint_is_one_line(folder, capsys):
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert run(["inspect", str(folder)]) == 4
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "Git LFS pointer" in said.err
