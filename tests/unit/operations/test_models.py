"""Models that are named by a file or a folder."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.models import find_model, folder_of
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import view_plan
from deckard_deploy.planning.memory.fit import MemoryPlan
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.running.layout import StateDir
from tests.support.recording_reporter import RecordingReporter


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return gemma4.write(tmp_path / "My Model", quantization="nvfp4_awq")


def test_folder_is_planned_as_the_catalog_model(
    tiny: Path, tmp_path: Path, report: RecordingReporter
) -> None:
    choice = Choice(profile="cpu", settings=(f"model={tiny}", "max-model-len=1024"))
    view = view_plan(choice, tmp_path / "state", report)
    assert view.planned.plan.arguments[0] == str(tiny)
    assert view.planned.plan.served_name == "my-model"
    known = view_plan(Choice(profile="cpu"), tmp_path / "state", report)
    assert isinstance(view.planned.memory, MemoryPlan)
    assert isinstance(known.planned.memory, MemoryPlan)
    assert view.planned.memory.cache == known.planned.memory.cache
    assert view.planned.memory.tokens == known.planned.memory.tokens
    assert not (tmp_path / "state").exists()


def test_folder_in_container_is_mounted_read_only(
    tiny: Path, tmp_path: Path, report: RecordingReporter
) -> None:
    settings = (f"model={tiny}", "engine=vllm-0.19.1-cpu-docker", "image=a/b:1", "gateway_image=nginx:1")
    plan = view_plan(Choice(profile="cpu", settings=settings), tmp_path / "state", report).planned.plan
    mount = next(mount for mount in plan.mounts if mount.source == str(tiny))
    assert (mount.target, mount.read_only) == ("/models/local--my-model", True)


def test_model_file_is_read(tmp_path: Path, report: RecordingReporter) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ndescription: mine\nweights: {folder: /data/mine}\nsize_gb: 1.5\nquantization: fp8\n"
        "context_limit: null\nserved_name: mine\n"
    )
    model = find_model(str(path), None, report)
    assert folder_of(model, StateDir(tmp_path)) == Path("/data/mine")


@pytest.mark.parametrize("reference", ["./missing", "/missing", "~/missing", "a/b/c", "-/x"])
def test_missing_folder_is_one_line(reference: str, report: RecordingReporter) -> None:
    with pytest.raises(BadInputError, match="no such folder"):
        find_model(reference, None, report)


def test_misspelt_name_gets_a_suggestion(report: RecordingReporter) -> None:
    with pytest.raises(BadInputError, match="did you mean 'tiny-gemma4'"):
        find_model("tiny-gema4", None, report)
