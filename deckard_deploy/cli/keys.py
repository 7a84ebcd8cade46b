"""`keys`: who may ask this host's gateways."""

import json
from pathlib import Path

import click

from deckard_deploy.cli.gateway import take_over
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.site import open_site
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.errors import DeployError
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of clients.

    Once there was a key, every client of this host needs one.

    \b
    Example:
      deckard-deploy keys add alice
    """


@keys.command()
@click.argument("name")
@state_option
def add(name: str, state_dir: Path | None) -> None:
    """Make a key, and print it: this once, for only its hash is kept.

    Running gateways take it over at once; the engine is not restarted.

    \b
    Example:
      deckard-deploy keys add alice > alice.key
    """
    directory = state(state_dir)
    ring = Keys(directory.root)
    ring.must_be_new(name)
    with ring.held():
        first = not ring.ring().closed
        key = ring.add(name)
    click.echo(key)
    _tell_gateways(directory)
    say(f"{name} may ask now, with this key alone: it is not shown again")
    if first:
        say("from now on every client of this host needs a key")


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_option
def list_(state_dir: Path | None, *, as_json: bool) -> None:
    """List the names of keys, and when they were made.

    \b
    Example:
      deckard-deploy keys list
    """
    rows = sorted((name, record.made) for name, record in Keys(state(state_dir).root).ring().keys.items())
    if as_json:
        click.echo(json.dumps([{"name": name, "made": made} for name, made in rows], indent=2))
    else:
        table(rows)


@keys.command()
@state_option
def access(state_dir: Path | None) -> None:
    """Print what a gateway on another machine reads: hashes of the keys, this tool's own among them.

    \b
    Example:
      deckard-deploy keys access > access.conf
    """
    click.echo(Keys(state(state_dir).root).access(), nl=False)


@keys.command()
@click.argument("name")
@state_option
def revoke(name: str, state_dir: Path | None) -> None:
    """Refuse a key from now on; answers that are being streamed for it still end.

    \b
    Example:
      deckard-deploy keys revoke alice
    """
    directory = state(state_dir)
    ring = Keys(directory.root)
    if name not in ring.ring().keys and directory.deployments():
        say(
            f"no key is named {name!r}; if a revocation of it was interrupted, gateways may not know: they are told"
        )
        _tell_gateways(directory)
    ring.must_be_known(name)
    with ring.held():
        ring.revoke(name)
        left = ring.ring().keys
    _tell_gateways(directory)
    say(f"{name} is refused from now on")
    if not left:
        say("no key is left: only this tool gets in; make one: deckard-deploy keys add NAME")


def _tell_gateways(directory: "StateDir") -> None:
    """Every gateway of this host that runs; one that cannot be told keeps no other from being told."""
    failed: DeployError | None = None
    for name in directory.deployments():
        try:
            with open_site(directory, name, say) as site:
                if take_over(site, directory):
                    say(f"gateway  of {name} goes by the new keys")
        except DeployError as error:
            say(f"gateway  of {name} may still go by the old keys: {error.message}")
            failed = error
    if failed:
        raise failed
