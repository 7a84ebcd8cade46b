"""`switch`: stop one deployment and start another, which cannot run next to it."""

from contextlib import suppress
from pathlib import Path

from deckard_deploy.errors import BadInputError, DeployError
from deckard_deploy.operations import replicas
from deckard_deploy.operations.deployments import DeploymentRef, open_deployment, select_deployment
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT, Reporter
from deckard_deploy.running.deploy import observe


def run(
    stopped: str, started: str, state_dir: Path | None, report: Reporter, *, dry_run: bool = False
) -> str | None:
    """Stop a deployment, and start and prove the current release of another. Return its base URL; None with `dry_run`.

    If the other fails, or the user interrupts, the first is started again, if it ran, and the error is raised. Raises
    BadInputError before anything is stopped if the other was never ready, and the errors of `down.run` and `start.run`.
    """
    if stopped == started:
        raise BadInputError(
            f"{stopped[:80]} cannot be switched to itself", hint="two names of `deckard-deploy status`"
        )
    old, new = Selection(state_dir, stopped), Selection(state_dir, started)
    did_run = _runs(select_deployment(old), report)
    # What cannot start is refused here, while the first still runs.
    replicas.start(new, SILENT, dry_run=True)
    if dry_run:
        report.say(
            f"dry run: would stop {stopped}{'' if did_run else ', which does not run'}, and start {started}"
        )
        return None
    try:
        replicas.down(old, report)
        return _start(new, report, fallback=old if did_run else None)
    except KeyboardInterrupt:
        if did_run:  # guard: F70
            report.say(f"interrupted: {started} is stopped, and {stopped} is started again")
            for each in (new, old):  # of either, a part may have been stopped or started
                replicas.down(each, SILENT)
            replicas.start(old, report)
        raise


def _start(new: Selection, report: Reporter, *, fallback: Selection | None) -> str | None:
    """Start the new deployment. If it fails, start the fallback and raise the error."""
    try:
        return replicas.start(new, report)
    except DeployError as error:
        report.say(f"failed   {new.name}: {error.message}")
        if fallback:
            report.say(f"back     {fallback.name}")
            with suppress(DeployError):  # the start of the first says what it lacks then
                replicas.down(new, SILENT)  # of a group a part may run
            replicas.start(fallback, report)
        raise


def _runs(deployment: DeploymentRef, report: Reporter) -> bool:
    """Return True if a part of the deployment runs: a front may have ended before its replicas."""
    group = replicas.find_group(deployment)
    replicas_of_it = [group.replica(number) for number in group.numbers] if group else []
    return any(_is_up(each, report) for each in (deployment, *replicas_of_it))


def _is_up(deployment: DeploymentRef, report: Reporter) -> bool:
    with open_deployment(deployment.directory, deployment.name, report) as context:
        return observe(context.runtimes).state in ("running", "restarting")
