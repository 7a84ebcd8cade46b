"""`logs`: the engine's own words."""

import time

import click

from deckard_deploy.cli.output import say
from deckard_deploy.cli.state import Deployed, deployment_option

POLL_S = 0.2


@click.command()
@deployment_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the engine stops or ^C.")
@click.option("--tail", type=click.IntRange(min=0), default=200, show_default=True, help="Lines from the end.")
def logs(deployed: Deployed, follow: bool, tail: int) -> None:  # noqa: FBT001  click passes flags so
    """Print the engine's log.

    \b
    Example:
      deckard-deploy logs --follow
    """
    from deckard_deploy.cli.site import open_site  # noqa: PLC0415  not for --help

    directory, found = deployed
    with open_site(directory, found, say) as site:
        for runtime in site.runtimes.values():
            if follow and runtime.observe().state in ("running", "restarting"):
                lines = runtime.poll_lines()
                _print(lines[-tail:] if tail else [])
                while lines or runtime.observe().state in ("running", "restarting"):
                    time.sleep(POLL_S)
                    lines = runtime.poll_lines()
                    _print(lines)
            else:
                _print(runtime.tail(tail))


def _print(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)
