"""`watch`: keep the current release answering, judged by real completions."""

import time

from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.operations.deployments import open_deployment, select_deployment
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.readiness import probe
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import DeploymentContext
from deckard_deploy.running.docker.daemon import DaemonConnection
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Release
from deckard_deploy.running.watch import Canary, Watch, exclusive_watch
from deckard_deploy.startup.readiness import Outcome

TOKEN_COUNTERS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")


def run(selection: Selection, report: Reporter, *, interval_s: float, deadline_s: float) -> None:
    """Start the current release if nothing runs, and check it every `interval_s` until it is stopped.

    deadline_s: for an answer. Raises DeploymentBusyError (watched already), StartFailedError (given up).
    """
    deployment = select_deployment(selection)
    directory, name = deployment
    with exclusive_watch(directory.deployment(name)):
        daemon = DaemonConnection()
        watch = Watch(
            directory.deployment(name),
            canary=CompletionCanary(directory, deadline_s),
            say=report.say,
            daemon_ended=lambda context: daemon.has_ended(lambda: _endpoint(context)),
        )
        started = False
        goes_on = True
        while goes_on:
            with open_deployment(directory, name, report) as context:
                if started:
                    goes_on = watch.check(context)
                else:
                    started = watch.start(context)
            if goes_on:
                time.sleep(interval_s)
    report.say(f"stopped  {name}: nothing is left to watch")


def _endpoint(context: DeploymentContext) -> str | None:
    """Return the socket of the docker daemon; None for a deployment without docker."""
    docker = context.runtimes.get("docker")
    return docker.endpoint if docker else None


class CompletionCanary:
    """A request for a completion, next to the engine's token counters: a busy engine is not a hung one."""

    def __init__(self, directory: StateDir, deadline_s: float) -> None:
        """deadline_s: seconds for an answer."""
        self._directory = directory
        self._deadline_s = deadline_s
        self._tokens: float | None = None

    def __call__(self, release: Release) -> Canary:
        """Probe the release once."""
        found = probe(release, directory=self._directory, timeout_s=self._deadline_s)
        before = self._tokens
        self._tokens = _tokens_so_far(release.plan, self._directory)
        worked = before is not None and self._tokens is not None and self._tokens > before
        answered = found.outcome is Outcome.READY or (found.timed_out and worked)
        final = found.outcome is Outcome.ENGINE_DEAD
        # A restart changes neither the key nor the server that has the port.
        restart_helps = found.outcome not in (Outcome.OTHER_SERVER, Outcome.KEY_REFUSED)
        return Canary(answered, f"{found.outcome}: {found.detail}", final, restart_helps)


def _tokens_so_far(plan: LaunchPlan, directory: StateDir) -> float | None:
    """Return the tokens that the engine has read and written so far; None when it does not answer."""
    try:
        samples = scrape(metrics_url(plan.base_url), credentials(plan, directory)).samples
    except NetworkError:
        return None
    return sum(sum(samples[name].values()) for name in TOKEN_COUNTERS if name in samples)
