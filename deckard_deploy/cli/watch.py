"""`watch`: keep the current release answering."""

import signal
import time

import click

from deckard_deploy.cli.gateway import access
from deckard_deploy.cli.options import DAY_S, FiniteRange
from deckard_deploy.cli.output import say
from deckard_deploy.cli.site import open_site, probe
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Release
from deckard_deploy.running.watch import Canary, Watch, alone
from deckard_deploy.startup.readiness import Outcome

WORK = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")


@click.command()
@deployment_option
@click.option(
    "--interval", type=FiniteRange(1, DAY_S), default=30.0, show_default=True, help="Seconds in between."
)
@click.option(
    "--deadline", type=FiniteRange(1, DAY_S), default=120.0, show_default=True, help="Seconds for an answer."
)
def watch(deployed: Deployed, interval: float, deadline: float) -> None:
    """Keep the current release answering.

    It is started if it does not run, and asked for a completion every so often. One that has died is restarted at once,
    one that does not answer after three questions, unless it is at work; two restarts an hour are the most, and then
    this ends with exit code 6. `status` lists them. Ends when `down` stops the deployment.

    \b
    Example:
      deckard-deploy watch --name spark --interval 60
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal that it was started from may go
    directory, found = deployed
    deployment = directory.deployment(found)
    with alone(deployment):
        made = Watch(deployment, canary=_Asked(directory, deadline), say=say)
        begun, goes_on = False, True
        while goes_on:
            with open_site(directory, found, say) as site:
                if begun:
                    goes_on = made.look(site)
                else:
                    begun = made.begin(site)
            time.sleep(interval if goes_on else 0)
    say(f"stopped  {found}: nothing is left to watch")


class _Asked:
    """The canary, and what the engine had done by the last one: a busy engine is not a hung one."""

    def __init__(self, directory: "StateDir", deadline_s: float) -> None:
        self._directory = directory
        self._deadline_s = deadline_s
        self._work: float | None = None

    def __call__(self, release: "Release") -> "Canary":

        found = probe(release, directory=self._directory, timeout_s=self._deadline_s)
        before, self._work = self._work, _work_done(release.plan(), self._directory)
        busy = found.timed_out and before is not None and self._work is not None and self._work > before
        final = found.outcome in (Outcome.ENGINE_DEAD, Outcome.OTHER_SERVER)
        return Canary(found.outcome is Outcome.READY or busy, f"{found.outcome}: {found.detail}", final)


def _work_done(plan: "LaunchPlan", directory: "StateDir") -> float | None:
    """Tokens that the engine has read and written so far; None when it does not say."""
    try:
        samples = scrape(metrics_url(plan.base_url), access(plan, directory)).samples
    except NetworkError:
        return None
    return sum(sum(samples[name].values()) for name in WORK if name in samples)
