"""`rollback`: back to the release before the current one."""

import click

from deckard_deploy.cli.gateway import refuse_unfit_gateway, say_what_is_open
from deckard_deploy.cli.output import say
from deckard_deploy.cli.prepare import have_engine, stored_release
from deckard_deploy.cli.site import open_site
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.difference import difference
from deckard_deploy.running.deploy import bring_up
from deckard_deploy.running.lock import held


@click.command()
@deployment_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def rollback(deployed: Deployed, dry_run: bool) -> None:  # noqa: FBT001  click passes flags so
    """Bring the release before the current one back.

    It is started and proven as by `up`; when it does not come up, the current one is brought back. The base URL is the
    only thing on stdout. A second `rollback` goes forward again.

    \b
    Example:
      deckard-deploy rollback --name spark
    """
    directory, found = deployed
    with open_site(directory, found, say) as site:
        current, previous = site.releases.current(), site.releases.previous()
        if current is None or previous is None:
            raise BadInputError(
                f"{found} has no release before the current one", hint="deckard-deploy status"
            )
        say(f"{'would' if dry_run else 'rollback':8} {current.plan_hash} -> {previous.plan_hash}")
        plan = previous.plan()
        for change in difference(current.plan(), plan):
            say(f"           {change}")
        if dry_run:
            return
        with held(directory.deployment(found), verb="rollback"):
            site.releases.clear_leftovers()
            refuse_unfit_gateway(plan, directory)
            have_engine(plan, directory, site.runtimes[plan.runtime], say)
            bring_up(site, *stored_release(plan, site.releases))
    say_what_is_open(plan, directory)
    click.echo(plan.base_url)
