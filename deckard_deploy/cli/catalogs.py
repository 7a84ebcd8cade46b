"""`profiles`, `models` and `engines`: list the entries of the catalog, or show one."""

import json
import textwrap
from pathlib import Path
from typing import Literal

import click

from deckard_deploy import operations
from deckard_deploy.catalog import listing as catalog_listing
from deckard_deploy.cli.names import catalog_names
from deckard_deploy.cli.options import json_option
from deckard_deploy.cli.output import table
from deckard_deploy.cli.screens.findings import fit_lines

Kind = Literal["profiles", "models", "engines"]
WIDTH = 80


@click.command()
@click.option(
    "--facts", "source", type=click.Path(path_type=Path), help="Check the facts that `doctor --save` wrote."
)
@json_option
def here(source: Path | None, *, as_json: bool) -> None:
    """List the profiles that this machine can run.

    `up` selects the one of this machine by default. `doctor --profile NAME` checks disk and port.

    \b
    Example:
      deckard-deploy profiles here
    """
    found = operations.host.evaluate_profiles(source)
    if as_json:
        fits = [vars(fit) for fit in found.fits]
        click.echo(json.dumps({"default": found.default, "profiles": fits}, indent=2))
        return
    for line in fit_lines(found.fits):
        click.echo(line)
    click.echo()
    for line in textwrap.wrap(found.explanation, WIDTH):
        click.echo(line)


def _group(kind: Kind, summary: str, example: str, *, alone: click.Command | None = None) -> click.Group:
    """Return the group of one catalog folder. alone: the command that it runs without a subcommand."""

    @click.group(
        kind,
        invoke_without_command=True,
        help=f"{summary}\n\n\b\nExample:\n  deckard-deploy {kind} show {example}",
    )
    @click.pass_context
    def group(ctx: click.Context) -> None:
        if ctx.invoked_subcommand is None:
            ctx.invoke(alone or listing)

    @group.command("list", help=f"List all {kind}.\n\n\b\nExample:\n  deckard-deploy {kind} list --json")
    @json_option
    def listing(*, as_json: bool) -> None:
        _print_list(kind, as_json=as_json)

    @group.command(
        help=f"Print one, with the source of every number.\n\n\b\nExample:\n  deckard-deploy {kind} show {example}"
    )
    @click.argument("name", shell_complete=catalog_names(kind))
    @json_option
    def show(name: str, *, as_json: bool) -> None:

        if as_json:
            click.echo(operations.catalog.entry_json(kind, name))
        else:
            click.echo(operations.catalog.entry_source(kind, name), nl=False)

    return group


def _print_list(kind: Kind, *, as_json: bool) -> None:
    entries = catalog_listing.entries(kind)  # without pydantic: a list must be quick
    if as_json:
        rows = [{"name": entry.name, "description": entry.description} for entry in entries]
        click.echo(json.dumps(rows, indent=2))
        return
    table([(entry.name, entry.description) for entry in entries])
    if kind == "engines":
        click.echo()
        for line in operations.catalog.engine_abilities():
            click.echo(line)


profiles = _group(
    "profiles",
    "List the hardware profiles that this machine can run, or show one.",
    "spark",
    alone=here,
)
profiles.add_command(here)
models = _group("models", "List models, or show one.", "deckard-31b")
engines = _group("engines", "List engines, or show one.", "vllm-0.19.1")
