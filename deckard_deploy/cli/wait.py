"""`wait`: until the running endpoint is ready."""

import click

from deckard_deploy.cli.output import say
from deckard_deploy.cli.site import open_site, prove_ready
from deckard_deploy.cli.state import Deployed, deployment_option, start_line
from deckard_deploy.errors import StartFailedError


@click.command()
@deployment_option
def wait(deployed: Deployed) -> None:
    """Wait until the running endpoint is ready.

    Exit code 6 when it fails to start, 7 when its start makes no progress for the profile's startup_timeout_s.

    \b
    Example:
      deckard-deploy wait --profile spark && ./run-my-clients
    """
    directory, found = deployed
    with open_site(directory, found, say) as site:
        for runtime in site.runtimes.values():
            seen = runtime.observe()
            release = site.releases.get(seen.plan_hash) if seen.plan_hash else None
            if release and seen.state in ("running", "restarting"):
                prove_ready(release, runtime, directory=directory, say=say)
                click.echo(release.plan().base_url)
                return
    raise StartFailedError(f"{found} is not running", hint=start_line(deployed))
