"""`wait`: follow a running start until the endpoint is ready."""

from contextlib import suppress

from deckard_deploy.errors import DeploymentBusyError, StartFailedError
from deckard_deploy.operations.deployments import (
    open_deployment,
    select_engine,
    up_command,
)
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.readiness import wait_until_ready
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.deploy import DeploymentContext, decide, observe, record_ready
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.releases import Release


def run(selection: Selection, report: Reporter) -> str:
    """Wait until the running release of the deployment is ready. Return its base URL.

    Raises StartFailedError (nothing runs, or the start failed), TimedOutError.
    """
    deployment = select_engine(selection)
    directory, name = deployment
    with open_deployment(directory, name, report) as context:
        for runtime in context.runtimes.values():
            seen = runtime.observe()
            release = context.releases.get(seen.plan_hash) if seen.plan_hash else None
            if release and seen.state in ("running", "restarting"):
                loaded = release.load()
                wait_until_ready(loaded, runtime, directory=directory, report=report)
                _record_ready(context, loaded)
                return loaded.plan.base_url
    raise StartFailedError(f"{name} is not running", hint=up_command(deployment))


def _record_ready(context: DeploymentContext, release: Release) -> None:
    """Record that a launch is ready whose `up` was interrupted. Another verb at work records it itself."""
    decision = decide(release.plan_hash, observe(context.runtimes), release.launch())
    if decision.action == "follow":
        with suppress(DeploymentBusyError), lock_deployment(context.releases.deployment, verb="wait"):
            record_ready(context, release)
