"""`verify`: wrong files by model, and their repair."""

from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.options import DEFAULT_LOCK, Choice
from deckard_deploy.operations.pull import pull_models
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.verify import find_problems, repair
from tests.support.hub_server import Hub
from tests.support.model_hub import BIG
from tests.support.recording_reporter import RecordingReporter

SPARK = Choice(profile="spark", settings=("drafter=none",))


@pytest.fixture
def pulled(hub: Hub, tmp_path: Path) -> Path:
    """Return the folder of a model that was pulled."""
    (folder,) = pull_models(SPARK, tmp_path, SILENT)
    assert hub.served(BIG) == 300_000
    return folder


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.usefixtures("pulled")
def test_sound_model_has_no_problems(tmp_path: Path, *, fast: bool) -> None:
    assert find_problems(SPARK, tmp_path, SILENT, DEFAULT_LOCK, fast=fast) == {"deckard-31b": []}


def test_generated_model_has_no_entry(tmp_path: Path) -> None:
    assert find_problems(Choice(profile="cpu"), tmp_path, SILENT, DEFAULT_LOCK) == {}


@pytest.mark.parametrize("fast", [False, True])
def test_wrong_and_stray_files_are_problems(pulled: Path, tmp_path: Path, *, fast: bool) -> None:
    (pulled / BIG).write_bytes(b"?" * 300_000)
    (pulled / "other.safetensors").touch()
    found = find_problems(SPARK, tmp_path, SILENT, DEFAULT_LOCK, fast=fast)
    assert [problem.path for problem in found["deckard-31b"]] == [BIG, "other.safetensors"]


def test_repair_leaves_no_problems(hub: Hub, pulled: Path, tmp_path: Path, report: RecordingReporter) -> None:
    (pulled / BIG).write_bytes(b"?" * 300_000)
    (pulled / "other.safetensors").touch()
    assert repair(SPARK, tmp_path, report, DEFAULT_LOCK) == {"deckard-31b": []}
    assert (pulled / BIG).read_bytes() == hub.files[BIG]
    aside = pulled / ".deckard" / "quarantine" / "other.safetensors"
    assert aside.is_file()
    assert report.lines[0].endswith(f"; now {aside}")


def test_model_that_was_not_pulled_is_named_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="deckard-31b was not pulled: nothing is in ") as raised:
        find_problems(SPARK, tmp_path, SILENT, DEFAULT_LOCK)
    assert raised.value.hint == "deckard-deploy pull"
    assert hub.requests == []
