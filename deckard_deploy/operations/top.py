"""`top`: samples of the running engine."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.measuring.window import Figures, Window
from deckard_deploy.operations.deployments import running_plan, select_engine
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.system.http import EndpointCredentials


class Sample(NamedTuple):
    """The figures of the server at one moment, or the problem that kept them away."""

    at: datetime
    figures: Figures | None
    problem: str = ""


class MetricsSource(NamedTuple):
    """The running plan, and the URL and credentials of its metrics."""

    plan: LaunchPlan
    url: str
    access: EndpointCredentials


def metrics_source(selection: Selection, report: Reporter) -> MetricsSource:
    """Return the metrics page of the running plan. Raises BadInputError when nothing runs."""
    deployment = select_engine(selection)
    plan = running_plan(deployment, report)
    return MetricsSource(plan, metrics_url(plan.base_url), credentials(plan, deployment.directory))


def samples(source: MetricsSource, interval_s: float) -> Iterator[Sample]:
    """Yield a sample every `interval_s`, without end. A server that is gone is a sample as well."""
    window = Window()
    while True:
        now = datetime.now().astimezone()
        try:
            yield Sample(now, window.add(scrape(source.url, source.access)))
        except NetworkError as error:
            yield Sample(now, None, error.message)
        time.sleep(interval_s)


def one_sample(source: MetricsSource, interval_s: float) -> Sample:
    """Return the figures between two polls, `interval_s` apart.

    Raises NetworkError when the server is gone.
    """
    stream = samples(source, interval_s)
    next(stream)
    sample = next(stream)
    if sample.figures is None:
        raise NetworkError(sample.problem, hint="deckard-deploy status")
    return sample
