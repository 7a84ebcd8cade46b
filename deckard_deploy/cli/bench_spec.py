"""`bench spec`: the number of drafted tokens that is fastest on this machine."""

from typing import Any

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import numbers, output_tokens_option, selection_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@click.option(
    "--tokens", callback=numbers, default="1,2,3,4,5", show_default=True, help="Numbers of tokens to draft."
)
@click.option(
    "--concurrency",
    callback=numbers,
    default="1,4",
    show_default=True,
    help="Numbers of concurrent requests.",
)
@click.option(
    "--runs",
    type=click.IntRange(2, 100),
    help="Runs of each concurrency; default: 5, and up to 15 if they vary.",
)
@click.option(
    "--requests",
    type=click.IntRange(1, 1000),
    default=2,
    show_default=True,
    help="Requests of each stream in a run.",
)
@output_tokens_option
@click.option("--dry-run", is_flag=True, help="Print what would be started, and stop nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def spec(
    *, selection: Selection, tokens: tuple[int, ...], dry_run: bool, as_json: bool, **workload: Any
) -> None:
    """Find the number of drafted tokens that is fastest on this machine.

    The endpoint is RESTARTED for each number, and once without a drafter; at the end it runs as before. The
    acceptance of a drafter depends on the text, so chat requests in English are sent. `plan` shows the result
    next to its estimate.

    \b
    Example:
      deckard-deploy bench spec --tokens 1,2,4 --concurrency 1,4
    """
    settings = operations.bench.sweep_settings(**workload)
    if dry_run:
        say(operations.bench_spec.explain(selection, tokens))
        return
    record = operations.bench_spec.run(selection, settings, tokens, TERMINAL)
    if as_json:
        click.echo(record.model_dump_json(indent=2))
        return
    rows, advice = operations.bench_spec.result_of(record)
    table(rows)
    click.echo(advice)
