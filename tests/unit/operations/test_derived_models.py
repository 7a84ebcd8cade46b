"""Models whose spec is derived from a folder or a repository."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.derived_models import derive_model
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import view_plan
from deckard_deploy.operations.pull import pull_models
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.running.layout import StateDir
from tests.support.damaged_folders import damaged
from tests.support.hub_server import COMMIT, Hub, running
from tests.support.recording_reporter import RecordingReporter


@pytest.fixture
def tiny_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = gemma4.write(tmp_path / "source", quantization="nvfp4_awq")
    served = Hub({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    with running(served):
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield served


def test_repository_is_planned_without_its_weights(
    tiny_hub: Hub, tmp_path: Path, report: RecordingReporter
) -> None:
    choice = Choice(profile="cpu", settings=("model=owner/model",))
    plan = view_plan(choice, tmp_path / "state", report).planned.plan
    assert plan.model == "owner--model"
    assert plan.served_name == "model"
    assert f"weights  owner/model at commit {COMMIT}" in report.lines
    assert tiny_hub.served("model.safetensors") < len(tiny_hub.files["model.safetensors"]) // 10


def test_settled_commit_is_kept_without_the_hub(
    tiny_hub: Hub, tmp_path: Path, report: RecordingReporter
) -> None:
    directory = StateDir(tmp_path / "state")
    first = derive_model("owner/model", directory, report).spec
    tiny_hub.api_status = [(503, {})] * 9
    assert derive_model("owner/model", directory, report).spec == first


def test_pull_takes_the_settled_commit(tiny_hub: Hub, tmp_path: Path, report: RecordingReporter) -> None:
    choice = Choice(profile="cpu", settings=("model=owner/model",))
    folders = list(pull_models(choice, tmp_path / "state", report))
    assert [folder.name for folder in folders] == ["owner--model"]
    assert (folders[0] / "model.safetensors").read_bytes() == tiny_hub.files["model.safetensors"]


def test_link_out_of_the_folder_is_refused(tmp_path: Path, report: RecordingReporter) -> None:
    folder = gemma4.write(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(IntegrityError, match="link out of the folder"):
        derive_model(str(folder), None, report)
    weights.unlink()
    (tmp_path / "elsewhere.safetensors").rename(weights)
    derive_model(str(folder), None, report)


@pytest.mark.parametrize("kind", ["pipe", "loop", "dangling", "socket"])
def test_odd_file_is_refused(tmp_path: Path, report: RecordingReporter, kind: str) -> None:
    folder = gemma4.write(tmp_path / "tiny")
    path = folder / "tokenizer.model"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.symlink_to(path.name if kind == "loop" else "nothing")
    with pytest.raises(IntegrityError, match="neither a file nor a folder"):
        derive_model(str(folder), None, report)
    path.unlink()
    derive_model(str(folder), None, report)


@pytest.mark.parametrize("name", ["a:b", "a\nb", "\x1b[31m", "\udcff"])
def test_folder_that_docker_cannot_mount_is_refused(
    tmp_path: Path, report: RecordingReporter, name: str
) -> None:
    folder = gemma4.write(tmp_path / "tiny").rename(tmp_path / name)
    with pytest.raises(IntegrityError, match="cannot be printed") as caught:
        derive_model(str(folder), None, report)
    assert caught.value.message.isprintable()


@pytest.mark.slow
def test_damaged_folder_is_planned_or_refused_in_one_line(tmp_path: Path) -> None:
    """`tests.campaigns.damaged_folders` runs more."""
    sound = gemma4.write(tmp_path / "sound", quantization="nvfp4_awq")
    results = [damaged(sound, seed) for seed in range(60)]
    assert [result for result in results if result.fault] == []
    # The damages are no mere noise: some folders are refused, and some are still planned.
    assert {0, 4} <= {result.code for result in results}
