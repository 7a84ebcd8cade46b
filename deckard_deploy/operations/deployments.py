"""The deployments of this host: one selected by name, and one opened with its releases and runtimes."""

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import NamedTuple

from deckard_deploy.catalog.specs import Task
from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.engine import installed_program
from deckard_deploy.operations.gateway import ensure_gateway_files
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.readiness import NOTHING_PLANNED, wait_until_ready
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.memory.fit import MemoryPlan
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import DeploymentContext, observe
from deckard_deploy.running.layout import NAME_RULE, StateDir, is_deployment_name, state_directory
from deckard_deploy.running.process.runtime import ProcessRuntime
from deckard_deploy.running.releases import COMPOSE, Releases
from deckard_deploy.running.runtime import Observation, Runtime


class DeploymentRef(NamedTuple):
    """A deployment of this host, by name."""

    directory: StateDir
    name: str


def select_deployment(selection: Selection) -> DeploymentRef:
    """Return the selected deployment.

    Raises BadInputError when there is no such one, or several without a name.
    """
    directory = state_directory(selection.state_dir)
    known = directory.deployments()
    name, profile = selection.name, selection.profile
    found = known
    if name is None and profile:
        found = [each for each in known if profile_of(DeploymentRef(directory, each)) == profile]
    if name is None and len(found) == 1:
        name = found[0]
    if name is None and found:
        raise BadInputError(f"there are several deployments: {', '.join(found)}", hint="--name NAME")
    if name is None or name not in (known if directory.front_of(name) is None else directory.with_replicas()):
        hint = _known_or_up(known, profile)
        if name and not is_deployment_name(name):
            hint = NAME_RULE
        raise BadInputError(_no_such_deployment(name, profile, known), hint=hint)
    return DeploymentRef(directory, name)


def select_engine(selection: Selection) -> DeploymentRef:
    """Return the selected deployment, for a verb that is about one engine. Raises BadInputError for a group."""
    deployment = select_deployment(selection)
    refuse_group(deployment)
    return deployment


def refuse_group(deployment: DeploymentRef) -> None:
    """Raise BadInputError for a group, where one engine is meant."""
    if deployment.directory.deployment(deployment.name).group.exists():
        raise BadInputError(
            f"{deployment.name} has replicas, and this is about one engine",
            hint=f"--name {deployment.name}-1",
        )


def _no_such_deployment(name: str | None, profile: str | None, known: list[str]) -> str:
    what = "no deployments yet"
    if name:
        what = f"no deployment named {name[:80]!r}"
    elif profile:
        what = f"no deployment of profile {profile[:80]!r}"
    return f"{what}; known: {', '.join(known)}" if known else what


def _known_or_up(known: list[str], profile: str | None) -> str:
    if known:
        return "one of these: --name " + " or --name ".join(known)
    return f"deckard-deploy up --profile {profile}" if profile else "deckard-deploy up"


def profile_of(deployment: DeploymentRef) -> str:
    """Return the hardware profile of a deployment's newest release; its own name if it has none."""
    with suppress(IntegrityError):
        for release in Releases(deployment.directory.deployment(deployment.name)).all()[:1]:
            return release.load().plan.profile
    return deployment.name


def are_several(selection: Selection) -> bool:
    """Return True if the selection names no deployment and fits several."""
    if selection.name is not None or selection.profile is not None:
        return False
    return len(state_directory(selection.state_dir).deployments()) > 1


def up_command(deployment: DeploymentRef) -> str:
    """Return the command that starts the deployment as it was, or for the first time."""
    if Releases(deployment.directory.deployment(deployment.name)).current():
        return f"deckard-deploy start --name {deployment.name}"
    return plan_again_command(deployment)


def plan_again_command(deployment: DeploymentRef) -> str:
    """Return the `up` of the deployment, for more options. Its name may differ from its profile's."""
    name, profile = deployment.name, profile_of(deployment)
    if name == profile:
        return f"deckard-deploy up --profile {profile}"
    return f"deckard-deploy up --profile {profile} --name {name}"


@contextmanager
def open_deployment(
    directory: StateDir,
    name: str,
    report: Reporter,
    *,
    also: str | None = None,
    planned: Mapping[str, MemoryPlan] = NOTHING_PLANNED,
) -> Iterator[DeploymentContext]:
    """Open a deployment with each runtime that its releases use, and with `also`. Close them at the end.

    The process runtime is always among them: it finds processes by their environment, without any record.
    planned: the expected memory by plan hash; reported next to the measured one.
    """
    deployment = directory.deployment(name)
    releases = Releases(deployment)
    runtimes: dict[str, Runtime] = {}
    environment = dict(os.environ)
    in_docker = any((release.folder / COMPOSE).exists() for release in releases.all())
    if in_docker or also == "docker":
        from deckard_deploy.running.docker.runtime import DockerRuntime  # noqa: PLC0415  the docker SDK

        runtimes["docker"] = DockerRuntime(
            deployment, environment=docker_environment(environment, releases), say=report.command
        )
    program = functools.partial(installed_program, directory=directory, say=report.say)
    runtimes["process"] = ProcessRuntime(
        deployment, program=program, environment=environment, say=report.command
    )
    context = DeploymentContext(
        releases=releases,
        runtimes=runtimes,
        follow=functools.partial(wait_until_ready, directory=directory, report=report, planned=planned),
        say=report.say,
        prepare=lambda release: ensure_gateway_files(release.plan, directory, report),
    )
    try:
        yield context
    finally:
        for runtime in runtimes.values():
            runtime.close()


def docker_environment(environment: dict[str, str], releases: Releases) -> dict[str, str]:
    """Return the environment that selects the docker daemon which runs the deployment, else the caller's."""
    recorded = releases.endpoint()
    if recorded is None:
        return environment
    kept = {name: value for name, value in environment.items() if name != "DOCKER_CONTEXT"}
    return {**kept, "DOCKER_HOST": recorded}


def refuse_other_docker(releases: Releases, report: Reporter) -> None:
    """Raise EnvironmentUnfitError if the caller selects another docker daemon than the one that runs the deployment."""
    recorded = releases.endpoint()
    if recorded is None:
        return
    from deckard_deploy.running.docker.client import DockerClient  # noqa: PLC0415  the docker SDK

    selected = DockerClient(environment=dict(os.environ), say=report.command).endpoint
    if selected != recorded:  # guard: F68
        name = releases.deployment.name
        raise EnvironmentUnfitError(
            f"{name} was started by the docker daemon at {recorded}, and {selected} is selected now",
            hint=f"deckard-deploy down --name {name}, which goes to the first; or: unset DOCKER_HOST DOCKER_CONTEXT",
        )


# What an endpoint answers with, and the client of `connect` to start with.
ANSWERS: Mapping[Task, tuple[str, str]] = MappingProxyType(
    {
        "generate": ("texts", "openai-python"),
        "embed": ("vectors", "embeddings"),
        "score": ("scores", "rerank"),
    }
)


def example_command(plan: LaunchPlan) -> str:
    """Return a command that uses the endpoint."""
    if plan.task == "generate":
        return f"deckard-deploy chat --name {plan.deployment} 'Hello?'"
    return f"deckard-deploy connect {ANSWERS[plan.task][1]} --check --name {plan.deployment}"


def require_text(plan: LaunchPlan, verb: str) -> None:
    """Raise BadInputError if the deployment answers with vectors or scores, which the verb cannot use."""
    answer, example = ANSWERS[plan.task]
    if plan.task != "generate":
        raise BadInputError(
            f"{plan.deployment} answers with {answer}, and {verb} needs texts",
            hint=f"deckard-deploy connect {example} --name {plan.deployment}",
        )


def running_plan(deployment: DeploymentRef, report: Reporter) -> LaunchPlan:
    """Return the plan that runs. Raises BadInputError when nothing of the deployment runs."""
    with open_deployment(deployment.directory, deployment.name, report) as context:
        plan, _ = observed_plan(deployment, context)
        return plan


def observed_plan(deployment: DeploymentRef, context: DeploymentContext) -> tuple[LaunchPlan, Observation]:
    """Return the plan that runs in an open deployment, with the observation. Raises BadInputError."""
    seen = observe(context.runtimes)
    release = None
    if seen.plan_hash and seen.state == "running":
        release = context.releases.get(seen.plan_hash)
    if release is None:
        raise BadInputError(f"{deployment.name} does not run", hint=up_command(deployment))
    return release.load().plan, seen
