"""The patches that a choice needs, and base files against a patch set."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.patch_check import (
    Variant,
    build_files,
    build_wheel,
    check_source,
    check_wheel_of,
    find_patch_set,
    named_patches,
    needed_by,
)
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.patching import plugin

PATCH_SET = find_patch_set("vllm-0.19.1")
NAMES = ["eagle", "serving_chat", "reasoning", "modelopt"]


def test_patches_are_named_or_all() -> None:
    assert [patch.name for patch in named_patches(PATCH_SET, [])] == NAMES
    assert [patch.name for patch in named_patches(PATCH_SET, ["modelopt"])] == ["modelopt"]
    with pytest.raises(
        BadInputError, match="no patch named 'x'; known: eagle, serving_chat, reasoning, modelopt"
    ):
        named_patches(PATCH_SET, ["modelopt", "x"])


def test_choice_of_other_engine_needs_none() -> None:
    patched = Choice(profile="spark", settings=("engine=vllm-0.19.1",))
    assert needed_by(patched, PATCH_SET, SILENT) == {"serving_chat", "reasoning", "modelopt"}
    assert needed_by(Choice(profile="spark"), PATCH_SET, SILENT) == frozenset()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package with other files in the place of vLLM's."""
    for patch in PATCH_SET.patches:
        path = tmp_path / "site" / patch.target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    return tmp_path / "site" / "vllm"


def test_other_files_do_not_fit(package: Path, tmp_path: Path) -> None:
    source = {"image": None, "package": str(package), "wheel": None}
    origin, verdicts = check_source(PATCH_SET, source, Variant(drafter=False, quantization="none"), SILENT)
    assert origin == str(package)
    assert {verdict.name: verdict.fits for verdict in verdicts} == {
        "eagle": True,
        "serving_chat": False,
        "reasoning": False,
        "modelopt": True,
    }
    with pytest.raises(IntegrityError, match="vllm/entrypoints"):
        build_files(PATCH_SET, source, Variant(drafter=False, quantization="none"), tmp_path / "out", SILENT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("release", ["latest", "", "0.20", "0.19.1.post1"])
def test_release_must_be_three_numbers(release: str) -> None:
    with pytest.raises(BadInputError, match=r"a version such as 0\.19\.1 was expected"):
        check_wheel_of(PATCH_SET, release, SILENT)


def test_wheel_has_planned_hash(tmp_path: Path) -> None:
    row = build_wheel(tmp_path)
    assert row["sha256"] == plugin.wheel_sha256("nvfp4-awq")
    assert Path(row["path"]).is_file()
