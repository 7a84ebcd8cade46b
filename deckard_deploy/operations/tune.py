"""`tune`: the fastest settings of a deployment on this machine, by successive halving within a budget of time."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from deckard_deploy.errors import BadInputError, DeployError, EnvironmentUnfitError
from deckard_deploy.measuring import tuning
from deckard_deploy.measuring.tuning import SettingsOfTrial, Trial, TuneRecord
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.operations.bench import run_sweep
from deckard_deploy.operations.bench_target import (
    current_release,
    ensure_running,
    record_base,
    refuse_foreign_certificate,
)
from deckard_deploy.operations.choice import DEFAULT_FILE, resolve_choice
from deckard_deploy.operations.deployments import (
    DeploymentRef,
    open_deployment,
    refuse_group,
    require_text,
    up_command,
)
from deckard_deploy.operations.engine import ensure_engine
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.models import folder_of
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import HostPlan, plan_with_memory, refuse_what_cannot_run
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.operations.weights import ensure_weights
from deckard_deploy.planning.candidates import CONCURRENCY, Goal, candidates
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import DeploymentContext, observe
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.system.files import write_atomically

_FIRST_RUNS = 2  # of each concurrency in the first round; each round has twice as many
_ROUNDS = 3
_BUDGETED_START_S = 60.0  # until a start of this search has been timed


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """goal: decides the concurrency. budget_s: for everything, the return to the baseline included.

    limit: the largest distance of the greedy texts from the baseline's, 0 to 1. tried: settings of candidates of the
    user's own, in place of the built-in ones. output_tokens: of each measured answer. again: forget the trials of an
    interrupted search.
    """

    goal: Goal = "interactive"
    budget_s: float = 2700.0
    limit: float = 0.0
    tried: tuple[SettingsOfTrial, ...] = ()
    output_tokens: int = 300
    again: bool = False


@dataclass
class _Search:
    """A search that runs: its parts, its record, and the time that its steps took. plan: the baseline's."""

    plan: LaunchPlan
    deployment: DeploymentRef
    choice: Choice
    options: TuneOptions
    context: DeploymentContext
    report: Reporter
    path: Path
    record: TuneRecord
    texts: list[str]
    started: float = field(default_factory=time.monotonic)
    longest_start_s: float = _BUDGETED_START_S
    longest_sweep_s: float = 0.0

    def has_time(self, runs: int) -> bool:
        """Return True if another start, its runs, and the way back to the baseline fit into the budget."""
        needed = 2 * self.longest_start_s + self.longest_sweep_s * runs / _FIRST_RUNS
        return time.monotonic() - self.started + needed <= self.options.budget_s

    def keep(self, trial: Trial) -> None:
        """Store a trial in the record, and the record in its file, so that an interrupted search continues."""
        others = tuple(each for each in self.record.trials if each.settings != trial.settings)
        if trial.settings:
            self.record = self.record.model_copy(update={"trials": (*others, trial)})
        else:
            self.record = self.record.model_copy(update={"baseline": trial})
        tuning.save(self.path, self.record)

    def trial(self, settings: SettingsOfTrial) -> Trial:
        """Return the trial with these settings as the record has it, or a new one."""
        for trial in self.record.trials:
            if trial.settings == settings:
                return trial
        return Trial(settings=settings)


def explain(choice: Choice, state_dir: Path | None, report: Reporter, options: TuneOptions) -> list[str]:
    """Return the actions of `run`: one line a candidate. Nothing is changed. Raises the errors of `_baseline`."""
    directory = state_directory(state_dir)
    planned, _ = _baseline(choice, directory, report)
    lines = [f"would    measure plan {planned.plan.hash} as it is"]
    for settings in _candidates(planned, options):
        lines.append(f"would    measure it with {' '.join(settings)}")
    lines.append(f"         within {options.budget_s / 60:,.0f} minutes; each one is a start of the engine")
    return lines


def run(choice: Choice, state_dir: Path | None, report: Reporter, options: TuneOptions) -> TuneRecord:
    """Search, and return the saved record. At the end, and after ^C, the deployment runs as before.

    Raises BadInputError, EnvironmentUnfitError, DeploymentBusyError, and the errors of `deploy` if the release before
    does not start again.
    """
    directory = state_directory(state_dir)
    planned, deployment = _baseline(choice, directory, report)
    plan = planned.plan
    with (
        lock_deployment(directory.create(deployment.name), verb="tune"),
        open_deployment(directory, deployment.name, report, also=plan.runtime) as context,
    ):
        if observe(context.runtimes).plan_hash != plan.hash:
            raise BadInputError(
                f"{deployment.name} does not run plan {plan.hash}", hint=up_command(deployment)
            )
        path = _unfinished(plan, deployment, options)
        record, texts = _begin(planned, deployment, options)
        search = _Search(plan, deployment, choice, options, context, report, path, record, texts)
        try:
            _resume_or_measure(search)
            _halve(search, _candidates(planned, options))
        finally:
            report.say("back     to what ran before; ^C again leaves it as it is now")
            ensure_running(search.context, plan)
    best = tuning.winner(search.record.trials, search.record.baseline)
    record = search.record.model_copy(update={"winner": best.settings if best else None})
    final = directory.bench / "tune" / f"{record.id}.json"
    tuning.save(final, record)
    search.path.unlink(missing_ok=True)
    report.say(f"record   {final}")
    return record


def _baseline(choice: Choice, directory: StateDir, report: Reporter) -> tuple[HostPlan, DeploymentRef]:
    """Return the plan of the choice, which must be the current release. Raises BadInputError."""
    resolved = resolve_choice(choice, report, directory)
    deployment = DeploymentRef(directory, resolved.name)
    refuse_group(deployment)
    current = current_release(deployment).plan
    planned = plan_with_memory(resolved, directory, current)
    if planned.plan.hash != current.hash:
        raise BadInputError(
            f"{resolved.name} runs plan {current.hash}, and these options make plan {planned.plan.hash}",
            hint="the options that it was started with, or `up` with these options first",
        )
    require_text(planned.plan, "tune")
    refuse_foreign_certificate(planned.plan)
    return planned, deployment


def _candidates(planned: HostPlan, options: TuneOptions) -> Sequence[SettingsOfTrial]:
    return options.tried or candidates(planned.resolved, options.goal)


def _begin(
    planned: HostPlan, deployment: DeploymentRef, options: TuneOptions
) -> tuple[TuneRecord, list[str]]:
    """Return a new record, and the baseline's greedy texts."""
    texts = _texts(planned.plan, deployment)
    record = TuneRecord(
        **dict(record_base(planned.plan, datetime.now(UTC))),
        goal=options.goal,
        limit=options.limit,
        own_distance=tuning.distance(texts, _texts(planned.plan, deployment)),
        baseline=Trial(plan=planned.plan.hash),
        trials=(),
    )
    return record, texts


def _resume_or_measure(search: _Search) -> None:
    """Take the trials of an interrupted search, or measure the baseline."""
    if search.record.own_distance:
        search.report.say(
            f"text     the engine differs from itself: {search.record.own_distance:.0%} of the text"
        )
    earlier = None if search.options.again else tuning.load(search.path)
    if earlier is None:
        _measure(search, search.record.baseline, _FIRST_RUNS)
        return
    search.report.say(f"resume   {len(earlier.trials)} trials of {earlier.made_at}; --again forgets them")
    search.record = earlier


def _unfinished(plan: LaunchPlan, deployment: DeploymentRef, options: TuneOptions) -> Path:
    """Return the file that an interrupted search of the same kind leaves."""
    kind = f"{plan.hash} {options.goal} {options.limit} {options.output_tokens}"
    return deployment.directory.bench / "tune" / f"unfinished-{sha256(kind.encode()).hexdigest()[:12]}.json"


def _halve(search: _Search, tried: Sequence[SettingsOfTrial]) -> None:
    """Measure all candidates, then the faster half with twice as many runs, until one is left or the time is up."""
    alive = [search.trial(settings) for settings in tried]
    for number in range(1, _ROUNDS + 1):
        if not _has_measured(search, alive, number):
            search.record = search.record.model_copy(update={"out_of_time": True})
            return
        measured = [search.trial(trial.settings) for trial in alive]
        alive = tuning.better_half(measured, search.record.baseline)
        together = tuning.combination(alive, search.record.baseline)
        if together and all(trial.settings != together for trial in measured):
            alive.append(search.trial(together))
        if len(alive) <= 1 and number > 1:
            return


def _has_measured(search: _Search, alive: Sequence[Trial], number: int) -> bool:
    """Measure what a round lacks: the baseline, and the candidates. Return False when the time is up."""
    runs = _FIRST_RUNS * 2 ** (number - 1)
    if search.record.baseline.rounds < number:
        if not search.has_time(runs):
            return False
        ensure_running(search.context, search.plan)
        _measure(search, search.record.baseline, runs)
    for trial in alive:
        if trial.rejected or trial.rounds >= number:
            continue
        if not search.has_time(runs):
            search.report.say(f"time     the budget ends before {trial.label}")
            return False
        _try(search, trial, runs)
    return True


def _try(search: _Search, trial: Trial, runs: int) -> None:
    """Start a candidate, compare its text, and measure it. A candidate that fails is rejected with the reason."""
    search.report.say(f"try      {trial.label}")
    before = time.monotonic()
    try:
        planned = _plan_of(search, trial.settings)
        _require_present(planned, search)
        ensure_weights(planned.resolved, search.deployment.directory, search.report)
        ensure_engine(
            planned.plan,
            search.deployment.directory,
            search.context.runtimes[planned.plan.runtime],
            search.report,
        )
        ensure_running(search.context, planned.plan)
        trial = trial.model_copy(update={"plan": planned.plan.hash, "start_s": time.monotonic() - before})
        search.longest_start_s = max(search.longest_start_s, time.monotonic() - before)
        distance = tuning.distance(search.texts, _texts(planned.plan, search.deployment))
        trial = trial.model_copy(update={"distance": distance})
        if distance > max(search.options.limit, search.record.own_distance):
            raise BadInputError(f"its text differs: {distance:.0%} of it")
        _measure(search, trial, runs)
    except DeployError as error:
        search.report.say(f"rejected {trial.label}: {error.message}")
        search.keep(trial.model_copy(update={"rejected": _one_line(error.message)}))


def _plan_of(search: _Search, settings: SettingsOfTrial) -> HostPlan:
    """Return the plan of the choice with more settings. Raises BadInputError, DoesNotFitError."""
    directory = search.deployment.directory
    choice = replace(search.choice, settings=(*search.choice.settings, *settings))
    resolved = replace(resolve_choice(choice, search.report, directory), name=search.deployment.name)
    planned = plan_with_memory(resolved, directory, search.plan)
    refuse_what_cannot_run(planned)
    return planned


def _require_present(planned: HostPlan, search: _Search) -> None:
    """Raise EnvironmentUnfitError for a candidate that would download an engine or a drafter."""
    plan, directory = planned.plan, search.deployment.directory
    here = (directory.engines / plan.engine).exists()
    if plan.runtime == "docker":
        here = search.context.runtimes["docker"].missing_image(plan) is None
    if not here:
        raise EnvironmentUnfitError(f"the engine {plan.engine} is not on this machine")
    drafter = planned.resolved.drafter
    if drafter and drafter.weights and not folder_of(drafter, directory).is_dir():
        raise EnvironmentUnfitError(f"the drafter {drafter.name} is not on this machine")


def _measure(search: _Search, trial: Trial, runs: int) -> None:
    settings = Settings(
        concurrency=CONCURRENCY[search.options.goal],
        runs=runs,
        requests=1,
        output_tokens=search.options.output_tokens,
    )
    before = time.monotonic()
    record = run_sweep([search.deployment], settings, search.report)[0]
    search.longest_sweep_s = max(search.longest_sweep_s, (time.monotonic() - before) * _FIRST_RUNS / runs)
    speeds: dict[int, Sequence[float]] = {}
    for number in record.concurrencies:
        speeds[number] = [one.tokens_per_s for one in record.of(number)]
    search.keep(trial.with_runs(speeds))


def _texts(plan: LaunchPlan, deployment: DeploymentRef) -> list[str]:
    return tuning.greedy_texts(plan.base_url, plan.served_name, credentials(plan, deployment.directory))


def _one_line(message: str) -> str:
    return " ".join(message.split())[:400]


def result_of(record: TuneRecord) -> tuple[list[tuple[str, ...]], str]:
    """Return the record as a table, and the advice in one line."""
    rows = tuning.cells(record)
    if record.winner is None:
        return rows, "keep the settings as they are: no candidate is faster beyond chance"
    best = next(trial for trial in record.trials if trial.settings == record.winner)
    found = tuning.ratio(best, record.baseline)
    return (
        rows,
        f"fastest: {best.label}: {found.ratio:.2f} times as fast ({found.low:.2f} to {found.high:.2f})",
    )


def write_winner(record: TuneRecord, choice: Choice, report: Reporter) -> Path | None:
    """Write the deployment with the winning settings as YAML, and return the path; None without a winner.

    The file is ./deckard.yaml, or deckard.tuned.yaml beside the file that the choice was read from: that one's comments
    would be lost. Raises BadInputError for a file that exists, EnvironmentUnfitError.
    """
    if record.winner is None:
        return None
    used = choice.config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    path = used.with_name("deckard.tuned.yaml") if used else DEFAULT_FILE
    if path.exists():
        raise BadInputError(f"{path} exists, and was not written", hint=f"mv {path} {path}.old")
    resolved = resolve_choice(replace(choice, settings=(*choice.settings, *record.winner)), report)
    asked: dict[str, Any] = json.loads(resolved.asked)
    document = {"profile": asked["profile"], **asked["deployment"]}
    head = f"# Written by `tune`, record {record.id}: {' '.join(record.winner)}\n"
    write_atomically(path, head + yaml.safe_dump(document, sort_keys=False), mode=0o644)
    return path
