"""`keys`: the keys of the clients of this host's gateways."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.names import key_names
from deckard_deploy.cli.options import json_option, state_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL


@click.group()
def keys() -> None:
    """Create, list and revoke the API keys of clients.

    Once a key was created, every client of this host needs one.

    \b
    Example:
      deckard-deploy keys add alice
    """


@keys.command()
@click.argument("name")
@state_option
@click.option("--force", is_flag=True, help="Also while a deployment without a gateway runs.")
def add(name: str, state_dir: Path | None, *, force: bool) -> None:
    """Create a key, and print it once.

    Only the hash of the key is kept.

    Running gateways take it over immediately; the engine is not restarted. A deployment that runs without a
    gateway accepts everyone, so the key is refused then.

    \b
    Example:
      deckard-deploy keys add alice > alice.key
    """
    key, first = operations.keys.add_key(state_dir, name, TERMINAL, force=force)
    click.echo(key)
    operations.keys.tell_gateways(state_dir, TERMINAL)
    say(f"{name} has this key, which is not shown again")
    if first:
        say("from now on every client of a gateway of this host needs a key")


@keys.command(name="list")
@json_option
@state_option
def list_(state_dir: Path | None, *, as_json: bool) -> None:
    """List the names of the keys and their dates.

    \b
    Example:
      deckard-deploy keys list
    """
    rows = operations.keys.list_keys(state_dir)
    if as_json:
        click.echo(json.dumps([{"name": name, "made": made} for name, made in rows], indent=2))
        return
    table(rows)
    if not rows:
        say("no keys: create one with deckard-deploy keys add NAME")


@keys.command()
@state_option
def access(state_dir: Path | None) -> None:
    """Print the key file of a gateway on another machine.

    It holds hashes of the keys, including this tool's own key.

    \b
    Example:
      deckard-deploy keys access > access.conf
    """
    click.echo(operations.keys.access_file(state_dir), nl=False)


@keys.command()
@click.argument("name", shell_complete=key_names)
@state_option
def revoke(name: str, state_dir: Path | None) -> None:
    """Revoke a key.

    A response that is already streaming is allowed to finish.

    \b
    Example:
      deckard-deploy keys revoke alice
    """
    another_is_left = operations.keys.revoke_key(state_dir, name, TERMINAL)
    say(f"{name} is revoked")
    if not another_is_left:
        say("no key is left, so no client has access; create one: deckard-deploy keys add NAME")
