"""`profiles`, `models` and `engines`: list the entries of the catalog, or show one."""

import json
from pathlib import Path
from typing import Literal

import click

from deckard_deploy import operations
from deckard_deploy.catalog import listing as catalog_listing
from deckard_deploy.cli.names import catalog_names, model_names, own_model_names
from deckard_deploy.cli.options import Command, json_option, state_option
from deckard_deploy.cli.output import echo_line, say, table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.cli.screens.findings import fit_lines
from deckard_deploy.cli.screens.layout import WIDTH
from deckard_deploy.system.text import wrapped

Kind = Literal["profiles", "models", "engines"]


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
    for line in wrapped(found.explanation, WIDTH):
        click.echo(line)


def _group(kind: Kind, summary: str, example: str, *, alone: click.Command | None = None) -> click.Group:
    """Return the group of one catalog folder. alone: the command that it runs without a subcommand."""

    @click.group(
        kind,
        invoke_without_command=True,
        help=f"{summary}\n\n\b\nExample:\n  deckard-deploy {kind} show {example}",
    )
    @json_option
    @click.pass_context
    def group(ctx: click.Context, *, as_json: bool) -> None:
        if ctx.invoked_subcommand is None:
            ctx.invoke(alone or listing, as_json=as_json)
        elif as_json:
            raise click.UsageError(f"--json stands behind `{ctx.invoked_subcommand}`", ctx)

    with_state = state_option if kind == "models" else _unchanged

    @group.command("list", help=f"List all {kind}.\n\n\b\nExample:\n  deckard-deploy {kind} list --json")
    @json_option
    @with_state
    def listing(*, as_json: bool, state_dir: Path | None = None) -> None:
        _print_list(kind, state_dir, as_json=as_json)

    @group.command(
        help=f"Print one {kind[:-1]}, with the source of every number.\n\n\b\n"
        f"Example:\n  deckard-deploy {kind} show {example}"
    )
    @click.argument("name", shell_complete=model_names if kind == "models" else catalog_names(kind))
    @json_option
    @with_state
    def show(name: str, *, as_json: bool, state_dir: Path | None = None) -> None:

        if as_json:
            click.echo(operations.catalog.entry_json(kind, name, state_dir))
        else:
            click.echo(operations.catalog.entry_source(kind, name, state_dir), nl=False)

    return group


def _unchanged(command: Command) -> Command:
    return command


def _print_list(kind: Kind, state_dir: Path | None, *, as_json: bool) -> None:
    # Without pydantic: a list must be quick.
    rows = [(entry.name, entry.description) for entry in catalog_listing.entries(kind)]
    if kind == "models" and operations.completion.own_models(state_dir):
        rows += operations.own_models.list_models(state_dir)
    if as_json:
        entries = [{"name": name, "description": description} for name, description in rows]
        click.echo(json.dumps(entries, indent=2))
        return
    table(rows)
    if kind == "engines":
        click.echo()
        for line in operations.catalog.engine_abilities():
            echo_line(line, indent=2)


profiles = _group(
    "profiles",
    "List the hardware profiles that this machine can run, or show one.",
    "spark",
    alone=here,
)
profiles.add_command(here)
models = _group("models", "List models, show one, or add one of your own.", "deckard-31b")


@models.command()
@click.argument("name")
@click.argument("source", metavar="SOURCE")
@state_option
def add(name: str, source: str, state_dir: Path | None) -> None:
    """Add a folder, a repository of the hub or a model file under a name.

    The derived settings are written to a file, which may be edited. A repository keeps its commit. No weights are
    downloaded.

    \b
    Example:
      deckard-deploy models add mine ./my-fine-tune
    """
    path = operations.own_models.add_model(name, source, state_dir, TERMINAL)
    say(f"{name} is added: {path}")


@models.command()
@click.argument("name", shell_complete=own_model_names)
@state_option
def remove(name: str, state_dir: Path | None) -> None:
    """Remove a model that was added. Its weights stay, and so does what runs.

    \b
    Example:
      deckard-deploy models remove mine
    """
    weights = operations.own_models.remove_model(name, state_dir)
    say(f"{name} is removed")
    if weights:
        say(f"its weights stay in {weights}")


engines = _group("engines", "List engines, or show one.", "vllm-0.19.1")
