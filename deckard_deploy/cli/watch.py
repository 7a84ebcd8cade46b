"""`watch`: keep the current release answering."""

import signal

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import DAY_S, FiniteRange, selection_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection


@click.command()
@selection_option
@click.option(
    "--interval",
    type=FiniteRange(1, DAY_S),
    default=30.0,
    show_default=True,
    help="Seconds between two requests.",
)
@click.option(
    "--deadline", type=FiniteRange(1, DAY_S), default=120.0, show_default=True, help="Seconds for an answer."
)
def watch(selection: Selection, interval: float, deadline: float) -> None:
    """Keep the current release answering.

    Starts the release if it is not running, and requests a completion at each interval. An engine that has died is
    restarted immediately. An engine with three unanswered requests among the last six is restarted; a request that
    times out while the token counters move is not counted. At most two restarts are made in an hour. If a third is
    needed, `watch` ends with exit code 6. `status` lists the restarts. `watch` ends when `down` stops the
    deployment.

    With replicas, a completion is requested from each. A replica that does not answer gets no requests of clients
    until it answers. `watch` goes on with the other replicas after it has given one up.

    \b
    Example:
      deckard-deploy watch --name spark --interval 60
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal that it was started from may go
    operations.group_watch.run(selection, TERMINAL, interval_s=interval, deadline_s=deadline)
