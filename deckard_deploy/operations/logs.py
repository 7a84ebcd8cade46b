"""`logs`: the lines of the engine, or of its last failed start."""

import time
from collections.abc import Iterator

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.deployments import open_deployment, select_deployment, select_engine
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.deploy import GATEWAY_HEADING, DeploymentContext, observe
from deckard_deploy.running.releases import FAILURE_LOG, ReleaseFolder, Releases
from deckard_deploy.running.runtime import Runtime

POLL_S = 0.2


def gateway_lines(selection: Selection, report: Reporter, *, tail: int) -> Iterator[str]:
    """Yield the last `tail` lines of the gateway's log.

    If the last start has failed and nothing runs, the lines are those of its record.
    """
    directory, name = select_deployment(selection)
    with open_deployment(directory, name, report) as context:
        for runtime in context.runtimes.values():
            yield from runtime.tail_gateway(tail)
        kept = _last_failure(context, report)
        if tail and GATEWAY_HEADING in kept:
            yield from kept[kept.index(GATEWAY_HEADING) + 1 :][-tail:]


def lines(selection: Selection, report: Reporter, *, follow: bool, tail: int) -> Iterator[str]:
    """Yield the last `tail` lines; with `follow` also the new ones, until the engine stops.

    If the last start has failed and nothing runs, the lines are those of its record.
    """
    deployment = select_engine(selection)
    directory, name = deployment
    with open_deployment(directory, name, report) as context:
        for runtime in context.runtimes.values():
            if follow and _runs(runtime):
                yield from _followed(runtime, tail)
            else:
                yield from runtime.tail(tail)
        kept = _last_failure(context, report)
        if tail:
            yield from kept[-tail:]
        if not kept and observe(context.runtimes).state == "missing":
            report.say(f"{name} is not running, and no log of its last start is kept")


def failed_lines(selection: Selection, report: Reporter, *, tail: int) -> Iterator[str]:
    """Yield the last `tail` lines of the last failure, whatever runs now. Raises BadInputError without one."""
    directory, name = select_deployment(selection)
    releases = Releases(directory.deployment(name))
    log = releases.last_failure_log()
    if log is None:
        raise BadInputError("no log of a failed start was kept", hint=f"deckard-deploy logs --name {name}")
    kept = ReleaseFolder(log.parent).text(FAILURE_LOG).splitlines()
    report.say(f"of the last failure, from {log}:")
    if tail:
        yield from kept[-tail:]


def _followed(runtime: Runtime, tail: int) -> Iterator[str]:
    new = runtime.poll_lines(last=tail)
    running = True
    yield from new
    while new or running:
        # The state is read before the lines: they may be the engine's last words.
        running = _runs(runtime)
        time.sleep(POLL_S)
        new = runtime.poll_lines()
        yield from new


def _last_failure(context: DeploymentContext, report: Reporter) -> list[str]:
    """Return the recorded log of the last start, if it failed and nothing runs."""
    newest = next(iter(context.releases.all()), None)
    if newest is None or observe(context.runtimes).state != "missing":
        return []
    try:
        launch = newest.launch()
        if launch is None or launch.state != "failed":
            return []
        kept = newest.text(FAILURE_LOG).splitlines()
    except IntegrityError:
        return []  # damaged, or never written
    report.say(f"nothing is running; the log of the failed start is in {newest.folder / FAILURE_LOG}:")
    return kept


def _runs(runtime: Runtime) -> bool:
    return runtime.observe().state in ("running", "restarting")
