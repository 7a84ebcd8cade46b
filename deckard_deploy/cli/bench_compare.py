"""`bench compare`: two records, or a record and a published table, as ratios."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.names import record_names
from deckard_deploy.cli.options import FiniteRange, state_option


@click.command()
@click.argument("old", shell_complete=record_names)
@click.argument("new", default="last", shell_complete=record_names)
@click.option(
    "--fail-below",
    type=FiniteRange(0.01, 100),
    help="Exit with code 10 if NEW is significantly slower and the ratio is below this.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_option
def compare(old: str, new: str, *, fail_below: float | None, as_json: bool, state_dir: Path | None) -> None:
    """Compare two records, or a record with a published table.

    OLD and NEW are records as `bench show` takes them, or the name of a table: seed, author-plain,
    author-dflash, nvidia-nvfp4, nvidia-mtp. A ratio above 1 means that NEW is faster. With --fail-below 0.95
    the exit code is 10 if NEW is significantly slower and the ratio over all repeated rows is below 0.95.

    \b
    Example:
      deckard-deploy bench compare seed last --fail-below 0.95
    """
    compared = operations.bench_compare.compare_named(old, new, state_dir)
    if as_json:
        click.echo(json.dumps(operations.bench_compare.as_json(compared), indent=2))
    else:
        screens.bench.print_comparison(compared)
    if fail_below is not None:
        operations.bench_compare.require_speed(compared, fail_below)
