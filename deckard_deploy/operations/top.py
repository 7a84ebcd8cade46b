"""`top`: samples of the running engine, or of replicas."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.metrics import Page, merged, metrics_url, scrape
from deckard_deploy.measuring.window import Figures, Window
from deckard_deploy.operations.deployments import DeploymentRef, running_plan, select_deployment
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.replicas import find_group
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.http import EndpointCredentials


class Sample(NamedTuple):
    """The figures of the server at one moment, or the problem that kept them away.

    of: the figures of each replica, by its name; the sample's own are then those of all that answered.
    """

    at: datetime
    figures: Figures | None
    problem: str = ""
    of: tuple[tuple[str, "Sample"], ...] = ()


class MetricsSource(NamedTuple):
    """The running plan, and the URL and credentials of its metrics. replicas: of a front, which has none itself."""

    plan: LaunchPlan
    url: str
    access: EndpointCredentials
    replicas: tuple["MetricsSource", ...] = ()


def metrics_source(selection: Selection, report: Reporter) -> MetricsSource:
    """Return the metrics page of the running plan. Raises BadInputError when nothing runs."""
    deployment = select_deployment(selection)
    group = find_group(deployment)
    if group is None:
        return _source(running_plan(deployment, report), deployment)
    members = []
    for number in group.numbers:
        release = Releases(group.directory.deployment(group.replica(number).name)).current()
        if release:
            members.append(_source(release.load().plan, deployment))
    plan = running_plan(deployment, report)
    return _source(plan, deployment)._replace(replicas=tuple(members))


def _source(plan: LaunchPlan, deployment: DeploymentRef) -> MetricsSource:
    return MetricsSource(plan, metrics_url(plan.base_url), credentials(plan, deployment.directory))


def samples(source: MetricsSource, interval_s: float) -> Iterator[Sample]:
    """Yield a sample every `interval_s`, without end. A server that is gone is a sample as well."""
    window = Window()
    windows = {each.plan.deployment: Window() for each in source.replicas}
    while True:
        now = datetime.now().astimezone()
        if source.replicas:
            yield _group_sample(source, now, window, windows)
        else:
            yield _sample(source, now, window)[0]
        time.sleep(interval_s)


def _sample(source: MetricsSource, now: datetime, window: Window) -> tuple[Sample, Page | None]:
    try:
        page = scrape(source.url, source.access)
    except NetworkError as error:
        return Sample(now, None, error.message), None
    return Sample(now, window.add(page)), page


def _group_sample(source: MetricsSource, now: datetime, window: Window, windows: dict[str, Window]) -> Sample:
    """Return the figures of each replica, and of all that answered together."""
    parts = []
    pages = {}
    for each in source.replicas:
        name = each.plan.deployment
        sample, page = _sample(each, now, windows[name])
        parts.append((name, sample))
        if page:
            pages[name] = page
    if not pages:
        return Sample(now, None, f"no replica of {source.plan.deployment} answers", tuple(parts))
    return Sample(now, window.add(merged(pages)), of=tuple(parts))


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
