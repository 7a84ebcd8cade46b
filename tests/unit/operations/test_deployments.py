"""The deployments of this host: selected by name, and what runs of one."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.deployments import (
    DeploymentRef,
    open_deployment,
    refuse_other_docker,
    running_plan,
    select_deployment,
    up_command,
)
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.running.layout import NAME_RULE
from deckard_deploy.running.releases import COMPOSE, ENDPOINT
from tests.support.fake_deployment import FakeDeployment


def test_only_deployment_needs_no_name(fake: FakeDeployment) -> None:
    fake.stored(fake.plan())
    assert select_deployment(Selection(fake.state.root)) == DeploymentRef(fake.state, "box")


def test_several_deployments_need_a_name(fake: FakeDeployment) -> None:
    fake.stored(fake.plan())
    (fake.state.create("crate").releases / "one").mkdir()
    with pytest.raises(BadInputError, match="several deployments: box, crate"):
        select_deployment(Selection(fake.state.root))
    assert select_deployment(Selection(fake.state.root, "crate")).name == "crate"


def test_profile_selects_among_deployments(fake: FakeDeployment) -> None:
    """`--profile` is the hardware profile, also where a deployment is selected: not its name."""
    fake.stored(fake.plan())  # box, of the profile cpu
    (fake.state.create("spark").releases / "one").mkdir()
    assert select_deployment(Selection(fake.state.root, profile="cpu")).name == "box"
    assert select_deployment(Selection(fake.state.root, profile="spark")).name == "spark"
    with pytest.raises(BadInputError, match="no deployment of profile 'box'; known: box, spark") as refused:
        select_deployment(Selection(fake.state.root, profile="box"))
    assert refused.value.hint == "one of these: --name box or --name spark"


@pytest.mark.parametrize(
    ("name", "message"),
    [(None, "no deployments yet"), ("spark", "no deployment named 'spark'")],
)
def test_missing_deployment_is_refused(tmp_path: Path, name: str | None, message: str) -> None:
    with pytest.raises(BadInputError) as refused:
        select_deployment(Selection(tmp_path, name))
    assert refused.value.message == message


def test_invalid_name_is_suggested_to_no_command(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no deployment named 'Two'") as refused:
        select_deployment(Selection(tmp_path, "Two"))
    assert refused.value.hint == NAME_RULE


@pytest.mark.parametrize(("name", "options"), [("cpu", "--profile cpu"), ("box", "--profile cpu --name box")])
def test_hint_names_profile_and_deployment(fake: FakeDeployment, name: str, options: str) -> None:
    fake.stored(fake.plan().model_copy(update={"deployment": name}))
    fake.deployment.folder.rename(fake.state.deployment(name).folder)
    deployment = DeploymentRef(fake.state, name)
    assert up_command(deployment) == f"deckard-deploy up {options}"
    with pytest.raises(BadInputError, match=f"{name} does not run") as refused:
        running_plan(deployment, SILENT)
    assert refused.value.hint == f"deckard-deploy up {options}"


def test_running_plan_is_that_of_the_process(fake: FakeDeployment) -> None:
    fake.stored(fake.plan(NUMBER="2"), "deckard-launch-2")
    release = fake.started(fake.plan())
    assert running_plan(DeploymentRef(fake.state, "box"), SILENT) == release.plan


def test_open_deployment_has_process_runtime(fake: FakeDeployment) -> None:
    with open_deployment(fake.state, "box", SILENT) as context:
        assert list(context.runtimes) == ["process"]
        assert context.releases.all() == []


@pytest.fixture
def in_docker(fake: FakeDeployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDeployment:
    """A deployment that the docker daemon at /one.sock started; DOCKER_HOST selects /two.sock."""
    release, launch = fake.stored(fake.plan())
    (release.folder / COMPOSE).write_text("")
    (release.folder / ENDPOINT).write_text("unix:///one.sock\n")
    release.record(launch.model_copy(update={"runtime": "docker", "state": "ready"}))
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$DOCKER_HOST"\n')  # as `docker context inspect` does
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("DOCKER_HOST", "unix:///two.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    return fake


def docker_of(fake: FakeDeployment) -> str | None:
    with open_deployment(fake.state, "box", SILENT, also="docker") as context:
        return context.runtimes["docker"].endpoint


def test_verbs_go_to_recorded_docker(in_docker: FakeDeployment) -> None:
    assert docker_of(in_docker) == "unix:///one.sock"


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_stopped_deployment_goes_to_selected_docker(in_docker: FakeDeployment, state: str) -> None:
    release = in_docker.releases.all()[0]
    release.record(release.recorded_launch().model_copy(update={"state": state}))
    assert docker_of(in_docker) == "unix:///two.sock"
    refuse_other_docker(in_docker.releases, SILENT)


def test_release_of_earlier_version_goes_to_selected_docker(in_docker: FakeDeployment) -> None:
    (in_docker.releases.all()[0].folder / ENDPOINT).unlink()
    assert docker_of(in_docker) == "unix:///two.sock"
    refuse_other_docker(in_docker.releases, SILENT)


def test_up_refuses_another_docker(in_docker: FakeDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentUnfitError, match="started by the docker daemon at unix:///one"):
        refuse_other_docker(in_docker.releases, SILENT)
    monkeypatch.setenv("DOCKER_HOST", "unix:///one.sock")
    refuse_other_docker(in_docker.releases, SILENT)
