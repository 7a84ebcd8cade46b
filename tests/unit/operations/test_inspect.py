"""A checkpoint by folder or by name, and the patches that it needs."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.inspect import checkpoint_folder, inspect_checkpoint, needed_patch_names
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.running.layout import StateDir


def test_model_name_is_a_folder_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = StateDir(tmp_path / "state")
    (directory.models / "m").mkdir(parents=True)
    assert checkpoint_folder("m", directory) == directory.models / "m"
    with pytest.raises(BadInputError, match=r"\./m: no such folder"):
        checkpoint_folder("./m", directory)
    (tmp_path / "m").mkdir()
    assert checkpoint_folder("m", directory) == Path("m")
    assert checkpoint_folder("./m", directory) == Path("m")


@pytest.mark.parametrize(
    ("quantization", "drafter", "names"),
    [
        ("none", False, ["serving_chat", "reasoning"]),
        ("nvfp4_awq", False, ["serving_chat", "reasoning", "modelopt"]),
        ("none", True, ["eagle", "serving_chat", "reasoning"]),
    ],
)
def test_patches_depend_on_format_and_drafter(quantization: str, names: list[str], *, drafter: bool) -> None:
    assert needed_patch_names(quantization, drafter=drafter) == names


def test_inspected_checkpoint_has_patches(tmp_path: Path) -> None:
    gemma4.write(tmp_path / "models" / "tiny", quantization="nvfp4_awq")
    checkpoint = inspect_checkpoint("tiny", None, tmp_path)
    assert checkpoint.found.quantization == "nvfp4_awq"
    assert checkpoint.patches == ["serving_chat", "reasoning", "modelopt"]
    assert checkpoint.found.nan_scales == 0
    assert inspect_checkpoint("tiny", None, tmp_path, count_nan=True).found.nan_scales == 0


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        inspect_checkpoint(str(tmp_path / "tiny"), None, tmp_path)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("deckard-31b", "deckard-31b is not on this machine yet", "deckard-deploy pull --model deckard-31b"),
        ("tiny-gemma4", "tiny-gemma4 is not on this machine yet", "deckard-deploy up --profile cpu"),
        ("tiny-gemm4", "no model named 'tiny-gemm4'; did you mean 'tiny-gemma4'?", "deckard-deploy models"),
    ],
)
def test_model_that_was_not_pulled_has_a_right_hint(
    tmp_path: Path, name: str, message: str, hint: str
) -> None:
    with pytest.raises(BadInputError) as refused:
        inspect_checkpoint(name, None, tmp_path)
    assert (refused.value.message, refused.value.hint) == (message, hint)
