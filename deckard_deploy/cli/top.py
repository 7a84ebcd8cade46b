"""`top`: what the running engine does, live."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

import click

from deckard_deploy.cli.gateway import access
from deckard_deploy.cli.options import DAY_S, FiniteRange
from deckard_deploy.cli.site import endpoint
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.cli.top_figures import Look, line
from deckard_deploy.cli.top_screen import watch
from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.measuring.window import Window
from deckard_deploy.system.http import Access


@click.command()
@deployment_option
@click.option(
    "--interval",
    type=FiniteRange(0.2, DAY_S),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print what was between, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def top(deployed: Deployed, interval: float, once: bool, as_json: bool) -> None:  # noqa: FBT001  click passes flags so
    """Watch throughput, latency, queue, KV cache and drafter.

    On a terminal: a screen, left with q or ^C. Elsewhere, and with --json: a line at every interval.

    \b
    Example:
      deckard-deploy top
      deckard-deploy top --once --json
    """
    plan = endpoint(deployed)
    url, opened = metrics_url(plan.base_url), access(plan, deployed.directory)
    if once:
        _once(url, opened, interval, as_json=as_json)
        return
    with contextlib.suppress(KeyboardInterrupt):  # ^C is how one leaves
        if as_json or not _can_be_drawn_on():
            for look in _looks(url, opened, interval):
                click.echo(_json(look) if as_json else _line(look))
        else:
            watch(plan, _looks(url, opened, interval=0), interval)


def _can_be_drawn_on() -> bool:
    """Whether stdout is a terminal that can move its cursor and has the letters; another one gets lines."""
    letters = (sys.stdout.encoding or "").lower().startswith("utf")
    return sys.stdout.isatty() and letters and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def _looks(url: str, opened: "Access", interval: float) -> Iterator[Look]:
    """Look for ever, `interval` seconds apart; a server that is gone is a look as well."""
    window = Window()
    while True:
        now = datetime.now().astimezone()
        try:
            yield Look(now, window.add(scrape(url, opened)))
        except NetworkError as error:
            yield Look(now, None, error.message)
        time.sleep(interval)


def _once(url: str, opened: "Access", interval: float, *, as_json: bool) -> None:

    looks = _looks(url, opened, interval)
    next(looks)
    look = next(looks)
    if look.figures is None:
        raise NetworkError(look.problem, hint="deckard-deploy status")
    click.echo(_json(look) if as_json else _line(look))


def _json(look: Look) -> str:
    facts = asdict(look.figures) if look.figures else {"problem": look.problem}
    return json.dumps({"at": look.at.isoformat(timespec="seconds"), **facts})


def _line(look: Look) -> str:

    said = line(look.figures) if look.figures else f"no answer: {look.problem}"
    return f"{look.at:%H:%M:%S}  {said}"
