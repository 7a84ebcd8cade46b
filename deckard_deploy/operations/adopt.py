"""`adopt`: take over a stack that a person has started from a folder of `render all`. Nothing is restarted."""

from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from deckard_deploy.errors import DeployError, EnvironmentUnfitError
from deckard_deploy.operations import render_folder
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.gateway import ensure_gateway_files, reload_gateway_keys
from deckard_deploy.operations.patch_files import attest, attest_plugin
from deckard_deploy.operations.readiness import probe
from deckard_deploy.operations.release import record_asked
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import DeploymentContext
from deckard_deploy.running.docker.runtime import DockerRuntime
from deckard_deploy.running.gateway.files import ACCESS
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import ADOPTED, COMPOSE, GATEWAY, PLAN, Adopted, Launch, Release
from deckard_deploy.running.runtime import Observation
from deckard_deploy.startup.readiness import Outcome
from deckard_deploy.system.files import read_regular, remove_folder

PROBE_TIMEOUT_S = 120.0


def run(folder: Path, state_dir: Path | None, report: Reporter, *, dry_run: bool = False) -> str:
    """Take over the stack that runs from a rendered folder. Return its base URL.

    Its keys become keys of this host. Raises BadInputError for a folder that was not rendered, IntegrityError for
    one that was changed by hand, EnvironmentUnfitError unless exactly that stack runs and answers.
    """
    folder = folder.resolve()
    record = render_folder.read_record(folder)
    render_folder.require_unchanged(folder, record)
    plan = render_folder.read_plan(folder, record)
    adopted = Adopted(folder=str(folder), variables=render_folder.machine_settings(folder))
    located = plan.located(PurePosixPath(folder), adopted.variables)
    directory = state_directory(state_dir)
    with open_deployment(directory, plan.deployment, report, also="docker") as context:
        seen = _running_stack(context, folder, record)
        report.say(f"adopt    {plan.deployment}: plan {record.plan}, started from {folder}")
        if dry_run:
            return located.base_url
        directory.create(plan.deployment)
        with lock_deployment(context.releases.deployment, verb="adopt"):
            release = context.releases.store(record.plan, _contents(folder, plan, adopted)).load()
            # So that `up` with the same choice leaves the stack alone, and with another one replaces it.
            record_asked(release, context.releases, record.asked)
            launch = _launch(release, record.launch_id, seen)
            release.record(launch)
            try:
                _take_over_keys(located, directory, context, report)
                _prove(release, directory, context, report)
            except DeployError:
                if release != context.releases.current():
                    remove_folder(release.folder)  # it is still the person's
                raise
            context.releases.switch(release)
            release.record(launch.model_copy(update={"state": "ready"}))
    report.say("adopted  status, watch, keys, rollback and down work on it from now on")
    return located.base_url


def _contents(folder: Path, plan: LaunchPlan, adopted: Adopted) -> dict[str, str]:
    """Return the files of the release: those of the folder, and where it is."""
    names = [PLAN, COMPOSE]
    if plan.gateway:
        names.append(GATEWAY)
    contents = {name: read_regular(folder / name) for name in names}
    return contents | {ADOPTED: adopted.model_dump_json(indent=1) + "\n"}


def _running_stack(
    context: DeploymentContext, folder: Path, record: render_folder.FolderRecord
) -> Observation:
    """Return the state of the stack, which must be the folder's. Raises EnvironmentUnfitError."""
    runtime = context.runtimes["docker"]
    if not isinstance(runtime, DockerRuntime):
        raise TypeError("adopt is for docker")
    runtime.accept(str(folder))
    name = context.releases.deployment.name
    seen = runtime.observe()
    start = f"cd {folder} && docker compose up -d"
    if seen.state != "running":
        raise EnvironmentUnfitError(f"{name} does not run from {folder}: it is {seen.state}", hint=start)
    if (seen.plan_hash, seen.launch_id) != (record.plan, record.launch_id):
        raise EnvironmentUnfitError(
            f"{name} runs plan {seen.plan_hash}, and {folder} holds plan {record.plan}",
            hint=f"to run the folder's, which restarts the engine: {start}",
        )
    return seen


def _launch(release: Release, launch_id: str, seen: Observation) -> Launch:
    return Launch(
        launch_id=launch_id,
        started_at=datetime.now(UTC).isoformat("T", "seconds"),
        state="starting",
        runtime="docker",
        base_url=release.plan.base_url,
        instance_id=seen.instance_id,
        restart_count=seen.restart_count,
    )


def _take_over_keys(
    plan: LaunchPlan, directory: StateDir, context: DeploymentContext, report: Reporter
) -> None:
    """Make the folder's keys keys of this host, and give the gateway all keys of this host."""
    if plan.gateway is None:
        return
    keys = Keys(directory.root)
    was_closed = keys.ring().closed
    try:
        access = read_regular(Path(plan.gateway.folder) / ACCESS)
    except PermissionError as error:
        raise EnvironmentUnfitError(
            f"{plan.gateway.folder} belongs to another user", hint="adopt as the user who ran prepare.sh"
        ) from error
    with keys.lock():
        new = keys.take_over(access)
    if new:
        report.say(f"keys     of {', '.join(new)} are keys of this host now")
    if keys.ring().closed and not was_closed:
        report.say("keys     every client of this host's deployments needs one from now on")
    elif was_closed and "geo $open { default 1; }" in access:
        report.say(
            f"keys     every client of {plan.deployment} needs one from now on, as on the rest of this host"
        )
    ensure_gateway_files(plan, directory, report)
    reload_gateway_keys(context, directory)


def _prove(release: Release, directory: StateDir, context: DeploymentContext, report: Reporter) -> None:
    """Require that the stack answers and uses the plan's files. It runs on whatever the outcome."""
    found = probe(release, directory=directory, timeout_s=PROBE_TIMEOUT_S)
    if found.outcome is not Outcome.READY:
        raise EnvironmentUnfitError(
            f"{release.plan.deployment} runs, and is not adopted, because it is {found.outcome}: {found.detail}",
            hint=f"docker logs {release.plan.container_name}; when it answers: adopt again",
        )
    runtime = context.runtimes["docker"]
    if release.plan.patches or release.plan.request_filter:
        report.say(f"patches  {attest(release.plan, runtime)}")
    if release.plan.plugin:
        report.say(f"plugin   {attest_plugin(release.plan, runtime)}")
