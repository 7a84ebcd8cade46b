"""Where the engine's program comes from when this tool does not install it."""

from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.cli.prepare import installed_program
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.running.layout import StateDir


def host_plan() -> LaunchPlan:
    deployment = Deployment(model="tiny-gemma4", engine="vllm-0.19.1-host")
    return build_plan(resolve(deployment, profile=library.profile("h100")))


def test_an_environment_of_the_users_own_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/vllm").touch()
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines/vllm-0.19.1-host").symlink_to(tmp_path / "venv")
    program = installed_program(host_plan(), StateDir(tmp_path), print)
    assert program == tmp_path / "engines/vllm-0.19.1-host/bin/vllm"


def test_without_one_the_error_says_how_to_link_it(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match=r"/engines/vllm-0\.19\.1-host is none") as raised:
        installed_program(host_plan(), StateDir(tmp_path), print)
    assert str(raised.value.hint).startswith("ln -sT ")
