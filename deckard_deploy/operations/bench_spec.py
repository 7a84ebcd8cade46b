"""`bench spec`: sweeps with several numbers of drafted tokens, and without a drafter."""

from collections.abc import Iterator
from datetime import UTC, datetime

from deckard_deploy.errors import BadInputError, DeployError
from deckard_deploy.measuring import speculation
from deckard_deploy.measuring.records import BenchRecord
from deckard_deploy.measuring.speculation import SpecRecord
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.operations.bench import run_sweep
from deckard_deploy.operations.bench_target import (
    current_release,
    ensure_running,
    record_base,
    refuse_foreign_certificate,
    refuse_socket,
)
from deckard_deploy.operations.deployments import (
    DeploymentRef,
    open_deployment,
    plan_again_command,
    select_engine,
)
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.lock import lock_deployment


def drafting_plan(deployment: DeploymentRef) -> LaunchPlan:
    """Return the plan of the current release.

    Raises BadInputError when it has no drafter, or cannot be measured.
    """
    plan = current_release(deployment).plan
    if plan.speculative is None:
        raise BadInputError(
            f"{deployment.name} has no drafter to try",
            hint=f"{plan_again_command(deployment)} --drafter NAME",
        )
    refuse_foreign_certificate(plan)
    refuse_socket(plan)
    return plan


def explain(selection: Selection, tokens: tuple[int, ...]) -> str:
    """Return the actions of `run` in one line. Raises BadInputError."""
    plan = drafting_plan(select_engine(selection))
    numbers = ", ".join(map(str, tokens))
    return f"would    restart plan {plan.hash} without its drafter, then drafting {numbers}"


def result_of(record: SpecRecord) -> tuple[list[tuple[str, ...]], str]:
    """Return the record as a table, and the advice in one line."""
    return list(speculation.cells(record)), record.recommendation_text()


def run(selection: Selection, settings: Settings, tokens: tuple[int, ...], report: Reporter) -> SpecRecord:
    """Measure the deployment without its drafter and with each number of drafted tokens. Return the record.

    The endpoint is restarted for each; in the end it runs as before. Raises DeploymentBusyError, and the
    errors of `drafting_plan`, `deploy` and `run_sweep`.
    """
    deployment = select_engine(selection)
    plan = drafting_plan(deployment)
    with lock_deployment(deployment.directory.create(deployment.name), verb="bench spec"):
        sweeps = dict(_sweeps(deployment, plan, settings, (0, *tokens), report))
    record = _record(plan, settings, sweeps)
    folder = deployment.directory.bench / "spec"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    report.say(f"record   {speculation.save(folder, record)}")
    return record


def _sweeps(
    deployment: DeploymentRef,
    plan: LaunchPlan,
    settings: Settings,
    tokens: tuple[int, ...],
    report: Reporter,
) -> Iterator[tuple[int, BenchRecord]]:
    with open_deployment(deployment.directory, deployment.name, report, also=plan.runtime) as context:
        try:
            for number in tokens:
                what = f"drafting {number}" if number else "without a drafter"
                report.say(f"start    {what}")
                ensure_running(context, plan.with_draft_tokens(number))
                yield number, run_sweep([deployment], settings, report)[0]
        except (DeployError, KeyboardInterrupt):
            report.say("back     to what ran before; ^C again leaves it as it is now")
            ensure_running(context, plan)
            raise
        ensure_running(context, plan)


def _record(plan: LaunchPlan, settings: Settings, sweeps: dict[int, BenchRecord]) -> SpecRecord:
    off = sweeps[0]
    attempts = []
    for number, record in sweeps.items():
        if number:
            attempts.append(speculation.evaluate(number, record, off))
    return SpecRecord(
        **dict(record_base(plan, datetime.now(UTC))),
        settings=settings,
        off=off.id,
        off_tokens_per_s=speculation.median_speeds(off),
        tried=tuple(attempts),
        recommended=speculation.recommend(tuple(attempts)),
    )
