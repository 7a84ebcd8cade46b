"""`tune`: the fastest settings on this machine."""

import re
from pathlib import Path
from typing import Any

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import choice_options, output_tokens_option, state_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(_context: click.Context, _option: click.Parameter, text: str) -> float:
    """Return the seconds of a text like 45m."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smh])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a time such as 90s, 45m or 2h")
    return float(int(found[1]) * _SECONDS[found[2]])


@click.command()
@choice_options
@state_option
@click.option(
    "--for",
    "goal",
    type=click.Choice(["interactive", "agents", "throughput"]),
    default="interactive",
    show_default=True,
    help="Measure 1, 1 and 4, or 16 concurrent requests.",
)
@click.option(
    "--budget",
    "budget_s",
    callback=_duration,
    default="45m",
    show_default=True,
    help="Time for everything, such as 90s, 45m or 2h.",
)
@click.option(
    "--try",
    "tried",
    multiple=True,
    metavar="'KEY=VALUE ...'",
    help="Settings of a candidate, in place of the built-in ones.",
)
@click.option(
    "--text-distance",
    "limit",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the greedy texts that may differ from the present ones.",
)
@output_tokens_option
@click.option("--again", is_flag=True, help="Forget the trials of an interrupted search.")
@click.option("--dry-run", is_flag=True, help="Print the candidates, and stop nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def tune(
    *,
    choice: Choice,
    state_dir: Path | None,
    tried: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **search: Any,
) -> None:
    """Find the fastest settings of a deployment on this machine.

    The deployment must run with the options that are given here. The endpoint is RESTARTED for each candidate, and in
    the end it runs as before. Candidates that crash, do not fit into memory or change the greedy text are rejected. The
    faster half is measured again with twice as many runs, as long as the budget allows. An interrupted search
    continues. The winning settings are written to deckard.yaml, or to deckard.tuned.yaml beside a file that exists.

    \b
    Example:
      deckard-deploy tune --profile spark --for interactive --budget 45m
    """
    candidates = tuple(tuple(text.split()) for text in tried)
    options = operations.tune.TuneOptions(tried=candidates, **search)
    if dry_run:
        for line in operations.tune.explain(choice, state_dir, TERMINAL, options):
            say(line)
        return
    record = operations.tune.run(choice, state_dir, TERMINAL, options)
    path = operations.tune.write_winner(record, choice, TERMINAL)
    if as_json:
        click.echo(record.model_dump_json(indent=2))
    else:
        rows, advice = operations.tune.result_of(record)
        table(rows)
        click.echo(advice)
    if path:
        say(f"written  {path}; try: deckard-deploy up -c {path}")
