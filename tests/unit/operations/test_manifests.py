"""The manifest of a model: from the lock, from its folder, or from the hub."""

from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.manifests import (
    hub_models,
    locked_manifest,
    manifest_for,
    repository_of,
)
from deckard_deploy.operations.options import DEFAULT_LOCK, LockUse
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.lockfile import Lock
from tests.support.hub_server import COMMIT, Hub
from tests.support.model_hub import BIG
from tests.support.sample_choices import choice

MODEL = library.model("deckard-31b")


def test_hub_models_are_model_and_drafter() -> None:
    names = [model.name for model in hub_models(choice("spark", "drafter=deckard-e4b"))]
    assert names == ["deckard-31b", "deckard-e4b"]
    assert hub_models(choice("cpu")) == []
    with pytest.raises(TypeError, match="tiny-gemma4 is not on the hub"):
        repository_of(library.model("tiny-gemma4"))


def test_manifest_comes_from_hub(hub: Hub, tmp_path: Path) -> None:
    manifest = manifest_for(MODEL, tmp_path / "m", DEFAULT_LOCK)
    assert (manifest.commit, {file.path for file in manifest.files}) == (COMMIT, {BIG, "config.json"})
    assert hub.ranges == []


def test_manifest_of_folder_asks_no_hub(hub: Hub, tmp_path: Path) -> None:
    manifest = manifest_for(MODEL, tmp_path / "m", DEFAULT_LOCK)
    folder = ModelFolder(tmp_path / "m")
    with folder.lock():
        folder.save_manifest(manifest)
    asked = len(hub.requests)
    assert manifest_for(MODEL, tmp_path / "m", DEFAULT_LOCK) == manifest
    assert len(hub.requests) == asked


def test_manifest_of_lock_asks_no_hub(hub: Hub, tmp_path: Path) -> None:
    manifest = manifest_for(MODEL, tmp_path / "m", DEFAULT_LOCK)
    file = tmp_path / "other.lock"
    lockfile.write(file, Lock(models={MODEL.name: manifest}))
    asked = len(hub.requests)
    assert manifest_for(MODEL, tmp_path / "m", LockUse(file, required=True)) == manifest
    assert len(hub.requests) == asked


def test_required_lock_must_have_the_model(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"deckard-31b is not in deckard\.lock"):
        manifest_for(MODEL, tmp_path / "m", LockUse(required=True))
    assert hub.requests == []


def test_lock_of_other_repository_is_refused(hub: Hub, tmp_path: Path) -> None:
    manifest = manifest_for(MODEL, tmp_path / "m", DEFAULT_LOCK)
    lock = Lock(models={MODEL.name: manifest.model_copy(update={"repo": "someone/else"})})
    with pytest.raises(IntegrityError, match=r"x\.lock holds deckard-31b to someone/else at "):
        locked_manifest(MODEL, lock, source=Path("x.lock"))
    assert locked_manifest(library.model("deckard-e4b"), lock, source=Path("x.lock")) is None
    assert hub.requests


def test_repository_without_weights_is_refused(hub: Hub, tmp_path: Path) -> None:
    del hub.files[BIG]
    with pytest.raises(IntegrityError, match="has no safetensors at aaaaaaaaaaaa"):
        manifest_for(MODEL, tmp_path / "m", DEFAULT_LOCK)
