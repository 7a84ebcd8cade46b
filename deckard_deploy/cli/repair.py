"""`repair`: a copy of a checkpoint without NaN scales, and with the files that it lacks."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.names import catalog_names
from deckard_deploy.cli.options import dry_run_option, json_option, state_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL


@click.command()
@click.argument("model", metavar="DIR|MODEL", shell_complete=catalog_names("models"))
@click.option(
    "-o",
    "--output",
    metavar="NEW",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to create; it must not exist.",
)
@click.option(
    "--from",
    "base",
    metavar="OWNER/NAME@COMMIT",
    help="Take a missing tokenizer, chat template, processor or generation_config from this repository.",
)
@state_option
@dry_run_option
@json_option
def repair(  # noqa: PLR0913  one parameter per option
    *, model: str, output: Path, base: str | None, state_dir: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Write a repaired copy of a checkpoint into a new folder.

    A NaN scale of an NVFP4 block becomes 448, or 0 if the block's codes are lost: the rule by which the patch for
    vLLM 0.19.1 and the plugin for later releases repair it in memory. Files that are missing come from the repository
    of the base model. The source is never written to, and NEW is complete or does not exist.

    \b
    Example:
      deckard-deploy repair ./my-export -o ./my-model --from google/gemma-4-31B-it@COMMIT
    """
    done = operations.repair.repair_checkpoint(model, output, base, state_dir, TERMINAL, dry_run=dry_run)
    if as_json:
        scales = [tensor._asdict() for tensor in done.scales]
        click.echo(json.dumps(done._asdict() | {"scales": scales}, indent=2))
    else:
        _print(done)
    if done.written is None and (done.scales or done.added):
        say(f"dry run: would write {output}")
    elif done.written is None:
        say(f"repair   nothing to repair in {done.source}: {output} was not written")
    else:
        say(
            f"repair   {done.written} is complete; next: deckard-deploy up --model {_as_folder(done.written)}"
        )


def _print(done: "operations.repair.Repair") -> None:
    rows = []
    for tensor in done.scales:
        rows.append(("scales", tensor.tensor, f"{tensor.largest} to 448, {tensor.zero} to 0"))
    for name in done.added:
        rows.append(("file", name, f"from {done.base}"))
    for name in done.left:
        rows.append(("left", name, "a folder: not copied"))
    if rows:
        table(rows)


def _as_folder(path: str) -> str:
    """Return the path in a form that `--model` takes for a folder."""
    return path if "/" in path else f"./{path}"
