"""`down`: stop it, and with --purge forget it."""

import click

from deckard_deploy.catalog import library, listing
from deckard_deploy.cli.monitor import stop as stop_monitoring
from deckard_deploy.cli.output import say
from deckard_deploy.cli.prepare import remove_generated
from deckard_deploy.cli.site import open_site
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.running.deploy import observe, take_down
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import held
from deckard_deploy.running.process import environment
from deckard_deploy.system.files import remove_folder


@click.command()
@deployment_option
@click.option(
    "--purge", is_flag=True, help="Remove its releases too and, with the last one, what was installed."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def down(deployed: Deployed, purge: bool, dry_run: bool) -> None:  # noqa: FBT001  click passes flags so
    """Stop the endpoint and remove what was started.

    Downloaded weights always stay.

    \b
    Example:
      deckard-deploy down --profile cpu --purge
    """
    directory, found = deployed
    with open_site(directory, found, say) as site:
        if dry_run:
            say(f"would stop {found}, which is {observe(site.runtimes).state}")
            return
        with held(directory.deployment(found), verb="down"):
            # It mounts folders of the deployment, and is on its network.
            if purge and stop_monitoring(deployed):
                say(f"nothing monitors {found} any more")
            stopped = take_down(site)
            say(f"{found} is stopped" if stopped else f"{found} was not running")
            if purge:
                _purge(directory, found)


def _purge(directory: "StateDir", name: str) -> None:
    """Remove the deployment; with the last one engines, caches and generated models, which can all be made again."""
    remove_folder(directory.deployment(name).folder)
    say(f"removed  releases and logs of {name}")
    if directory.deployments():
        return
    made = [folder for folder in (directory.engines, directory.models) if not folder.is_symlink()]
    if directory.engines in made:
        _remove_engines(directory)
    if directory.models in made:
        remove_generated(directory, say)
    for folder in (directory.cache, directory.root / "patches"):
        if folder.is_dir():
            remove_folder(folder)
    # Of models, only what was downloaded is left.
    for lock in (*(lock for folder in made for lock in folder.glob(".*.lock")), directory.startups):
        lock.unlink(missing_ok=True)
    say("removed  engines, patches, caches and generated models")
    for link in {directory.engines, directory.models}.difference(made):
        say(f"kept     what {link} leads to: other state directories may use it")


def _remove_engines(directory: "StateDir") -> None:

    for engine in listing.names("engines"):
        if library.engine(engine).dependency_lock is None:  # an image, or somebody's own environment
            continue
        environment.remove(directory.engines / engine, say=say)
