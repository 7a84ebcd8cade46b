"""The engine before a start: its program, its caches, and weights that its user can read."""

import os
from pathlib import Path
from typing import cast

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.operations.engine import (
    _make_private,
    installed_program,
    require_installable_engine,
    require_readable_by_everyone,
)
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.runtime import Runtime
from deckard_deploy.system.unknown import Unknown


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


class Images:
    """The part of a runtime that knows which images are here."""

    def __init__(self, *, here: bool) -> None:
        self.here = here

    def missing_image(self, plan: LaunchPlan) -> Unknown | None:
        return None if self.here else Unknown(f"the size of {plan.image}")


def docker_plan(image: str | None = None) -> LaunchPlan:
    deployment = Deployment(model="tiny-gemma4", engine="vllm-0.19.1-cpu-docker", image=image)
    return build_plan(resolve(deployment, profile=library.profile("cpu")))


def test_image_of_no_registry_is_not_pulled(tmp_path: Path) -> None:
    missing, state = cast("Runtime", Images(here=False)), StateDir(tmp_path)
    with pytest.raises(EnvironmentUnfitError, match="is not here, and no registry has it") as raised:
        require_installable_engine(docker_plan(), state, missing)
    assert str(raised.value.hint).startswith("in a checkout: tests/e2e/image/build.sh")
    assert (Path(__file__).parents[3] / "tests/e2e/image/build.sh").is_file()
    require_installable_engine(docker_plan(), state, cast("Runtime", Images(here=True)))
    require_installable_engine(docker_plan(image="mirror/vllm-cpu:1"), state, missing)


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
