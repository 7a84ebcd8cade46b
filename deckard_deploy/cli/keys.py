"""`keys`: the keys of the clients of this host's gateways."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deckard_deploy import operations
from deckard_deploy.cli.names import key_names
from deckard_deploy.cli.options import Command, dry_run_option, json_option, state_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL

if TYPE_CHECKING:
    from deckard_deploy.running.gateway.keys import KeyTerms

_DAY_S = 24 * 3600
_MOST_DAYS = 36_500  # a hundred years: a date of the year 10000 or later cannot be printed
_MOST = 10**9  # of a limit


def _terms_options(command: Command) -> Command:
    """Add the options with the limits of a key."""
    for option, most, text in (
        ("--expires-in", _MOST_DAYS, "Days after which the key is refused."),
        ("--concurrent", _MOST, "Requests at the same time."),
        ("--tokens-per-minute", _MOST, "Tokens a minute, of prompts and answers."),
        ("--requests-per-minute", _MOST, "Requests a minute."),
    ):
        command = click.option(option, type=click.IntRange(1, most), metavar="N", help=text)(command)
    return command


def _terms(options: dict[str, int | None]) -> "KeyTerms":
    days = options["expires_in"]
    return operations.keys.key_terms(
        requests=options["requests_per_minute"],
        tokens=options["tokens_per_minute"],
        concurrent=options["concurrent"],
        ends_at=None if days is None else int(time.time()) + days * _DAY_S,
    )


@click.group()
def keys() -> None:
    """Create, list, limit and revoke the API keys of clients.

    Once a key was created, every client of this host needs one.

    \b
    Example:
      deckard-deploy keys add alice
    """


@keys.command()
@click.argument("name")
@state_option
@click.option("--force", is_flag=True, help="Create the key even while a deployment without a gateway runs.")
@_terms_options
def add(name: str, state_dir: Path | None, *, force: bool, **terms: int | None) -> None:
    """Create a key, and print it once.

    Only the hash of the key is kept.

    Running gateways take it over immediately; the engine is not restarted. A deployment that runs without a
    gateway accepts everyone, so the key is refused then.

    \b
    Example:
      deckard-deploy keys add alice > alice.key
    """
    key, first = operations.keys.add_key(state_dir, name, TERMINAL, force=force, terms=_terms(terms))
    click.echo(key)
    operations.keys.tell_gateways(state_dir, TERMINAL)
    say(f"{name} has this key, which is not shown again")
    if first:
        say("from now on every client of a gateway of this host needs a key")


@keys.command(name="list")
@json_option
@state_option
def list_(state_dir: Path | None, *, as_json: bool) -> None:
    """List the names of the keys, their dates and their limits.

    \b
    Example:
      deckard-deploy keys list
    """
    found = operations.keys.list_keys(state_dir)
    if as_json:
        rows = [
            {"name": name, "made": record.made, **record.terms.model_dump()} for name, record in found.items()
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    table([(name, record.made, str(record.terms)) for name, record in found.items()])
    if not found:
        say("no keys: create one with deckard-deploy keys add NAME")


@keys.command()
@click.argument("name", shell_complete=key_names)
@state_option
@_terms_options
def limit(name: str, state_dir: Path | None, **terms: int | None) -> None:
    """Give a key these limits in place of its former ones.

    Without an option the key has no limits. A request over a limit gets 429 with Retry-After.

    \b
    Example:
      deckard-deploy keys limit alice --requests-per-minute 60
    """
    found = _terms(terms)
    operations.keys.limit_key(state_dir, name, found, TERMINAL)
    say(f"{name}: {found}")


@keys.command()
@click.argument("name", shell_complete=key_names)
@state_option
def rotate(name: str, state_dir: Path | None) -> None:
    """Replace a key by a new one with the same limits, and print it once.

    The old key is refused from then on.

    \b
    Example:
      deckard-deploy keys rotate alice > alice.key
    """
    click.echo(operations.keys.rotate_key(state_dir, name))
    operations.keys.tell_gateways(state_dir, TERMINAL)
    say(f"{name} has this key, which is not shown again; the old one is refused")


@keys.command(name="open")
@state_option
def open_(state_dir: Path | None) -> None:
    """Let every program of this machine in without a key again.

    This is the state of a host before its first key. Refused while a key exists, or while an exposed deployment
    runs.

    \b
    Example:
      deckard-deploy keys open
    """
    operations.keys.open_host(state_dir, TERMINAL)
    say("programs of this machine need no key any more")


@keys.command()
@json_option
@state_option
def usage(state_dir: Path | None, *, as_json: bool) -> None:
    """Show what each key has used since its engine was started.

    Requests, errors, tokens of prompts and of answers, and the median time to the first token of a stream. Prometheus
    gets the same figures, with the name of the key as a label.

    \b
    Example:
      deckard-deploy keys usage
    """
    found = list(operations.keys.usage(state_dir, TERMINAL))
    if as_json:
        click.echo(json.dumps([row.model_dump() for row in found], indent=2))
        return
    rows: list[tuple[str, ...]] = [
        ("deployment", "key", "requests", "errors", "tokens in", "tokens out", "first token")
    ]
    for row in found:
        first = "-" if row.first_token_s is None else f"{row.first_token_s:.2f} s"
        counts = (row.requests, row.errors, row.prompt_tokens, row.generation_tokens)
        rows.append((row.deployment, row.key, *map(str, counts), first))
    table(rows)


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
@dry_run_option
def revoke(name: str, state_dir: Path | None, *, dry_run: bool) -> None:
    """Revoke a key.

    A response that is already streaming is allowed to finish.

    \b
    Example:
      deckard-deploy keys revoke alice
    """
    if dry_run:
        operations.keys.explain_revocation(state_dir, name, TERMINAL)
        return
    another_is_left = operations.keys.revoke_key(state_dir, name, TERMINAL)
    say(f"{name} is revoked")
    if not another_is_left:
        say(
            "no key is left, so no client has access; create one: deckard-deploy keys add NAME; "
            "or let in every program of this machine: deckard-deploy keys open"
        )
