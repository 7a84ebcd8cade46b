"""`wait`: follow a running start until the endpoint is ready."""

from deckard_deploy.errors import StartFailedError
from deckard_deploy.operations.deployments import (
    open_deployment,
    select_deployment,
    up_command,
)
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.readiness import wait_until_ready
from deckard_deploy.operations.reporting import Reporter


def run(selection: Selection, report: Reporter) -> str:
    """Wait until the running release of the deployment is ready. Return its base URL.

    Raises StartFailedError (nothing runs, or the start failed), TimedOutError.
    """
    deployment = select_deployment(selection)
    directory, name = deployment
    with open_deployment(directory, name, report) as context:
        for runtime in context.runtimes.values():
            seen = runtime.observe()
            release = context.releases.get(seen.plan_hash) if seen.plan_hash else None
            if release and seen.state in ("running", "restarting"):
                loaded = release.load()
                wait_until_ready(loaded, runtime, directory=directory, report=report)
                return loaded.plan.base_url
    raise StartFailedError(f"{name} is not running", hint=up_command(deployment))
