"""`bench startup`: timed starts, with the compile caches and without them."""

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import selection_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@click.option("--runs", type=click.IntRange(1, 20), default=2, show_default=True, help="Starts of each kind.")
@click.option("--dry-run", is_flag=True, help="Print what would be started, and stop nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def startup(*, selection: Selection, runs: int, dry_run: bool, as_json: bool) -> None:
    """Measure startup time per phase, with warm and cold compile caches.

    The endpoint is RESTARTED for each run: first with empty caches, then with the existing ones. At the end it runs
    as before. `up` uses the result to estimate the remaining time.

    \b
    Example:
      deckard-deploy bench startup --runs 3
    """
    if dry_run:
        say(operations.bench_startup.explain(selection, runs))
        return
    record = operations.bench_startup.run(selection, runs, TERMINAL)
    if as_json:
        click.echo(record.model_dump_json(indent=2))
    else:
        table(operations.bench_startup.table_rows(record))
