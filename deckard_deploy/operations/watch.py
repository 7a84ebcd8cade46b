"""`watch`: keep the current release answering, judged by real completions."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from deckard_deploy.errors import BadInputError, NetworkError
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.operations.damage import report_damage
from deckard_deploy.operations.deployments import (
    DeploymentRef,
    open_deployment,
    running_plan,
    select_engine,
)
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.host_guard import MemoryGuard, is_unified, wedged_gpu
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.readiness import probe, probe_ranks
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import DeploymentContext
from deckard_deploy.running.docker.daemon import DaemonConnection
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Release
from deckard_deploy.running.watch import Canary, Cure, Health, Watch, exclusive_watch
from deckard_deploy.startup.background_call import BackgroundCall
from deckard_deploy.startup.readiness import Outcome, Readiness

DAMAGE_INTERVAL_S = 3600.0  # half a minute of the engine, on a Spark
TOKEN_COUNTERS = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")


def run(selection: Selection, report: Reporter, *, interval_s: float, deadline_s: float) -> None:
    """Start the current release if nothing runs, and check it every `interval_s` until it is stopped.

    deadline_s: for an answer. Raises DeploymentBusyError (watched already), StartFailedError (given up).
    """
    deployment = select_engine(selection)
    for _ in rounds(deployment, report, interval_s=interval_s, deadline_s=deadline_s):
        pass
    report.say(f"stopped  {deployment.name}: nothing is left to watch")


def rounds(
    deployment: DeploymentRef,
    report: Reporter,
    *,
    interval_s: float,
    deadline_s: float,
    on_health: Callable[[Health], None] = lambda _: None,
) -> Iterator[None]:
    """Watch one engine, and yield after each round until nothing is left to watch. Raises as `run`.

    on_health: as in running.watch.Watch.
    """
    directory, name = deployment
    with exclusive_watch(directory.deployment(name)):
        daemon = DaemonConnection()
        canary = CompletionCanary(directory, deadline_s, MemoryGuard(report), report)
        watch = Watch(
            directory.deployment(name),
            canary=canary,
            say=report.say,
            daemon_ended=lambda context: daemon.has_ended(lambda: _endpoint(context)),
            on_health=on_health,
        )
        started = False
        goes_on = True
        asked = time.monotonic()  # the start asks for damage, too
        while goes_on:
            with open_deployment(directory, name, report) as context:
                if started:
                    goes_on = watch.check(context)
                else:
                    started = watch.start(context)
            # Outside of `context`, which keeps an `up` waiting.
            if time.monotonic() - asked > DAMAGE_INTERVAL_S:
                asked = time.monotonic()
                report_damage_of(deployment, report)
            yield
            if goes_on:
                _rest(interval_s, canary)


def _rest(interval_s: float, canary: "CompletionCanary") -> None:
    """Wait for the next round, which begins immediately when memory runs out."""
    until = time.monotonic() + interval_s
    while not canary.shortage() and time.monotonic() < until:
        time.sleep(min(1.0, max(0.0, until - time.monotonic())))


def report_damage_of(deployment: DeploymentRef, report: Reporter) -> None:
    """Report the damage of the release that runs. Nothing is asked while none does."""
    with contextlib.suppress(BadInputError):
        plan = running_plan(deployment, report)
        if plan.task == "generate":
            report_damage(plan, deployment.directory, report)


def _endpoint(context: DeploymentContext) -> str | None:
    """Return the socket of the docker daemon; None for a deployment without docker."""
    docker = context.runtimes.get("docker")
    return docker.endpoint if docker else None


class CompletionCanary:
    """A request for a completion, next to the engine's token counters: a busy engine is not a hung one.

    Every data-parallel rank is asked, and has counters of its own: the others answer while one hangs.
    """

    def __init__(self, directory: StateDir, deadline_s: float, guard: MemoryGuard, report: Reporter) -> None:
        """deadline_s: seconds for an answer. guard: is asked once a second while the answer is waited for."""
        self._directory = directory
        self._deadline_s = deadline_s
        self._guard = guard
        self._report = report
        self._tokens: Mapping[int, float] = {}
        self._unified = False

    def shortage(self) -> str | None:
        """Return why the engine has to be stopped now; None where the machine does not freeze for want of memory."""
        return self._guard.shortage() if self._unified else None

    def __call__(self, release: Release) -> Canary:
        """Probe the release once."""
        call = BackgroundCall(lambda: self._ask(release))
        self._unified = is_unified(release.plan)
        while True:
            shortage = self.shortage()
            if shortage:  # guard: F69
                return Canary(answered=False, detail=shortage, final=True, cure="stop")
            found = call.answer(1.0)
            if found:
                return found

    def _ask(self, release: Release) -> Canary:
        ranks = release.plan.data_parallel_size
        if ranks == 1:
            answers = [probe(release, directory=self._directory, timeout_s=self._deadline_s)]
        else:
            answers = probe_ranks(release, ranks, directory=self._directory, timeout_s=self._deadline_s)
        before, self._tokens = self._tokens, _tokens_so_far(release.plan, self._directory)
        for rank, found in enumerate(answers):
            worked = rank in before and self._tokens.get(rank, 0) > before[rank]
            if found.outcome is not Outcome.READY and not (found.timed_out and worked):
                wedged = wedged_gpu(self._report) if found.timed_out and release.plan.gpus else ""
                return _failed(found, f"rank {rank} of {ranks} is " if ranks > 1 else "", wedged)
        return Canary(answered=True, detail="")


def _failed(found: Readiness, who: str, why: str) -> Canary:
    """Return the canary of a question without an answer. who: the rank, why: the cause, as parts of a sentence."""
    # A restart changes neither the key nor the server that has the port.
    cure: Cure = "none" if found.outcome in (Outcome.OTHER_SERVER, Outcome.KEY_REFUSED) else "restart"
    final = found.outcome is Outcome.ENGINE_DEAD
    return Canary(
        answered=False,
        detail=f"{who}{found.outcome}: {found.detail}{why}",
        final=final,
        cure=cure,
    )


def _tokens_so_far(plan: LaunchPlan, directory: StateDir) -> dict[int, float]:
    """Return the tokens that each rank has read and written so far; nothing when the engine does not answer."""
    try:
        samples = scrape(metrics_url(plan.base_url), credentials(plan, directory)).samples
    except NetworkError:
        return {}
    tokens: dict[int, float] = defaultdict(float)
    for name in TOKEN_COUNTERS:
        for labels, value in samples.get(name, {}).items():
            tokens[int(dict(labels).get("engine", "0"))] += value
    return dict(tokens)
