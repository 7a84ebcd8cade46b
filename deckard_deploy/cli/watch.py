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
    "--interval", type=FiniteRange(1, DAY_S), default=30.0, show_default=True, help="Seconds in between."
)
@click.option(
    "--deadline", type=FiniteRange(1, DAY_S), default=120.0, show_default=True, help="Seconds for an answer."
)
def watch(selection: Selection, interval: float, deadline: float) -> None:
    """Keep the current release answering.

    It is started if it is not running, and a completion is requested at each interval. An engine that has died is
    restarted immediately, one that does not answer after three questions, unless it is at work; two restarts an
    hour are the most, and then this ends with exit code 6. `status` lists them. Ends when `down` stops the
    deployment.

    Of replicas each is asked. One that does not answer gets no requests until it does; the others go on, also when
    one is given up.

    \b
    Example:
      deckard-deploy watch --name spark --interval 60
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal that it was started from may go
    operations.group_watch.run(selection, TERMINAL, interval_s=interval, deadline_s=deadline)
