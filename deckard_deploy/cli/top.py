"""`top`: the figures of the running engine, live."""

import contextlib
import sys

import click

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.options import DAY_S, FiniteRange, selection_option
from deckard_deploy.cli.output import can_rewrite_lines
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@click.option(
    "--interval",
    type=FiniteRange(0.2, DAY_S),
    default=2.0,
    show_default=True,
    help="Seconds between two samples.",
)
@click.option("--once", is_flag=True, help="Print one sample over a single interval, then exit.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def top(*, selection: Selection, interval: float, once: bool, as_json: bool) -> None:
    """Watch throughput, latency, queue, KV cache and drafter.

    On a terminal: a screen, left with q or ^C. Elsewhere, and with --json: a line at every interval.

    \b
    Example:
      deckard-deploy top
      deckard-deploy top --once --json
    """
    line = screens.figures.sample_json if as_json else screens.figures.sample_line
    source = operations.top.metrics_source(selection, TERMINAL)
    if once:
        click.echo(line(operations.top.one_sample(source, interval)))
        return
    with contextlib.suppress(KeyboardInterrupt):  # ^C is how one leaves
        if as_json or not is_drawable():
            for sample in operations.top.samples(source, interval):
                click.echo(line(sample))
        else:
            screens.live.watch(source.plan, operations.top.samples(source, 0), interval)


def is_drawable() -> bool:
    """Return True if stdout is a terminal that can move its cursor and shows Unicode."""
    shows_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    return shows_unicode and can_rewrite_lines(sys.stdout)
