"""The engine before a start: its program, its caches, and weights that its user can read."""

import os
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.operations.engine import _make_private, installed_program, require_readable_by_everyone
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.running.layout import StateDir


def host_plan() -> LaunchPlan:
    deployment = Deployment(model="tiny-gemma4", engine="vllm-0.19.1-host")
    return build_plan(resolve(deployment, profile=library.profile("h100")))


def test_environment_of_user_is_used(tmp_path: Path) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/vllm").touch()
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines/vllm-0.19.1-host").symlink_to(tmp_path / "venv")
    program = installed_program(host_plan(), StateDir(tmp_path), print)
    assert program == tmp_path / "engines/vllm-0.19.1-host/bin/vllm"


def test_missing_environment_hint_links_one(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match=r"/engines/vllm-0\.19\.1-host is none") as raised:
        installed_program(host_plan(), StateDir(tmp_path), print)
    assert str(raised.value.hint).startswith("ln -sT ")


def test_cache_folder_becomes_private(tmp_path: Path) -> None:
    for mode in (0o777, 0o700):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache").chmod(mode)
        _make_private(tmp_path / "cache")
        assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Somebody's own, not root's, with what a pull leaves beside them."""
    for path in (
        tmp_path / "m/.deckard/lock",
        tmp_path / "m/config.json",
        tmp_path / "m/sub/shard.safetensors",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600 if path.name == "lock" else 0o644)
    if os.geteuid() == 0:
        for path in (tmp_path / "m", *(tmp_path / "m").rglob("*")):
            os.chown(path, 1234, 1234)
    return tmp_path / "m"


@pytest.mark.parametrize(("path", "mode"), [("sub/shard.safetensors", 0o600), ("sub", 0o750), (".", 0o700)])
def test_unreadable_weights_are_named(weights: Path, path: str, mode: int) -> None:
    require_readable_by_everyone(weights)
    (weights / path).chmod(mode)
    with pytest.raises(EnvironmentUnfitError, match="may not be read by others") as raised:
        require_readable_by_everyone(weights)
    assert raised.value.hint == f"chmod -R a+rX {weights}"
    if os.geteuid() == 0:  # what is root's own, the container's root reads
        os.chown(weights / path, 0, 0)
        require_readable_by_everyone(weights)
