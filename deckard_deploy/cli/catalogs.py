"""`profiles`, `models` and `engines`: list, and show."""

import json
from typing import Literal

import click

from deckard_deploy.catalog import library
from deckard_deploy.catalog import listing as catalog
from deckard_deploy.cli.host_profile import here
from deckard_deploy.cli.output import table

Kind = Literal["profiles", "models", "engines"]


def _group(kind: Kind, summary: str, example: str, *, alone: click.Command | None = None) -> click.Group:
    """The group of one catalog folder: alone it lists or does `alone`; `show NAME` prints the file with its sources."""

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
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def listing(as_json: bool) -> None:  # noqa: FBT001  click passes flags so

        entries = catalog.entries(kind)
        if as_json:
            click.echo(
                json.dumps(
                    [{"name": entry.name, "description": entry.description} for entry in entries], indent=2
                )
            )
        else:
            table([(entry.name, entry.description) for entry in entries])
            for line in _abilities() if kind == "engines" else ():
                click.echo(line)

    @group.command(
        help=f"Print one, with the source of every number.\n\n\b\nExample:\n  deckard-deploy {kind} show {example}"
    )
    @click.argument("name")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def show(name: str, as_json: bool) -> None:  # noqa: FBT001  click passes flags so

        load = {"profiles": library.profile, "models": library.model, "engines": library.engine}[kind]
        spec = load(name)
        if as_json:
            click.echo(spec.model_dump_json(indent=2))
        else:
            click.echo(library.source(kind, name), nl=False)

    return group


def _abilities() -> list[str]:
    """What each engine drafts with and loads, and what of ours that takes."""
    lines = [""]
    for engine in map(library.engine, catalog.names("engines")):
        ours = f"plugin {engine.plugin}" if engine.plugin else f"patches {engine.patch_set}"
        ours = ours if engine.plugin or engine.patch_set else "nothing of ours"
        drafts = ", ".join(engine.drafter_methods) or "nothing"
        lines.append(f"{engine.name}: drafts with {drafts}; loads {', '.join(engine.quantizations)}; {ours}")
    return lines


profiles = _group(
    "profiles",
    "Say which hardware profiles this machine can run; list them, or show one.",
    "spark",
    alone=here,
)
profiles.add_command(here)
models = _group("models", "List models, or show one.", "deckard-31b")
engines = _group("engines", "List engines, or show one.", "vllm-0.19.1")
