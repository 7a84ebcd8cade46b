"""`logs`: the engine's own words."""

import contextlib
import time

import click

from deckard_deploy.cli.output import say
from deckard_deploy.cli.site import open_site
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.errors import IntegrityError
from deckard_deploy.running.deploy import Site, observe
from deckard_deploy.running.releases import FAILURE_LOG
from deckard_deploy.running.runtime import Runtime

POLL_S = 0.2


@click.command()
@deployment_option
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the engine stops or ^C.")
@click.option(
    "--tail", type=click.IntRange(min=0), default=200, show_default=True, help="Lines from the end."
)
def logs(deployed: Deployed, follow: bool, tail: int) -> None:  # noqa: FBT001  click passes flags so
    """Print the engine's log.

    When its last start has failed and nothing runs, what was kept of that.

    \b
    Example:
      deckard-deploy logs --follow
    """
    directory, found = deployed
    with open_site(directory, found, say) as site:
        for runtime in site.runtimes.values():
            if follow and _runs(runtime):
                lines, running = runtime.poll_lines(last=tail), True
                _print(lines)
                while lines or running:
                    running = _runs(runtime)  # before its lines are asked for: they may be its last words
                    time.sleep(POLL_S)
                    lines = runtime.poll_lines()
                    _print(lines)
            else:
                _print(runtime.tail(tail))
        _print(_last_failure(site)[-tail:] if tail else [])


def _last_failure(site: "Site") -> list[str]:
    """What was kept of the last start, if that failed and nothing runs: its own log went with it."""
    newest = next(iter(site.releases.all()), None)
    with contextlib.suppress(IntegrityError):  # damaged, or never written: there is nothing to show
        launch = newest.launch() if newest else None
        if newest and launch and launch.state == "failed" and observe(site.runtimes).state == "missing":
            lines = newest.text(FAILURE_LOG).splitlines()
            say(f"nothing runs; of the start that failed, from {newest.folder / FAILURE_LOG}:")
            return lines
    return []


def _runs(runtime: "Runtime") -> bool:
    return runtime.observe().state in ("running", "restarting")


def _print(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)
