"""`bench`: sweeps of running deployments, measured in turn, and their records."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from deckard_deploy.catalog.specs import ModelSpec
from deckard_deploy.errors import BadInputError, DeployError
from deckard_deploy.measuring import records
from deckard_deploy.measuring.engine_bench import Endpoint, bench_options
from deckard_deploy.measuring.figures import Row, rows
from deckard_deploy.measuring.records import BenchRecord, RecordHeader, Run
from deckard_deploy.measuring.report import markdown
from deckard_deploy.measuring.sides import Side, of_record
from deckard_deploy.measuring.sweep import sweep
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.operations.bench_compare import ComparedSides, compare_sides
from deckard_deploy.operations.bench_host import without_home
from deckard_deploy.operations.bench_target import (
    ceilings_of,
    record_base,
    requests_in_flight,
    running_endpoint,
)
from deckard_deploy.operations.deployments import DeploymentRef, select_engine
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.release import asked_model
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import state_directory
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.files import private_folder

# The model card's: "E4B drafter, 5 speculative tokens, 300 max tokens per request", at 1, 2 and 4 at once.
PRESETS: dict[str, dict[str, Any]] = {
    "seed": {"workload": "text", "concurrency": (1, 2, 4), "output_tokens": 300},
}


def sweep_settings(*, preset: str | None = None, runs: int | None = None, **given: Any) -> Settings:
    """Return the settings of a sweep. runs: of each concurrency; None: from 5 on until their mean is sure.

    given: fields of Settings; None stands for the preset's value or the default.
    """
    fields = dict(PRESETS.get(preset or "", {}))
    fields.update({name: value for name, value in given.items() if value is not None})
    fields.update({"runs": runs, "most_runs": runs} if runs else {"runs": 5, "most_runs": 15})
    return Settings(**fields)


def select(selection: Selection, beside: str | None) -> list[DeploymentRef]:
    """Return the deployments to measure: one, or two in turn.

    Raises BadInputError, also for one named twice.
    """
    deployments = [select_engine(selection)]
    if beside:
        deployments.append(select_engine(Selection(selection.state_dir, beside)))
        if deployments[0].name == deployments[1].name:
            raise BadInputError("--beside: a deployment cannot be compared with itself")
    return deployments


def markdown_text(record: BenchRecord) -> str:
    """Return a record as markdown, for a model card."""
    return markdown(record)


def summary_line(record: BenchRecord) -> str:
    """Return the record in one line: its subject and its highest speed."""
    best = max(rows(record), key=_median_speed)
    subject = record.subject
    return (
        f"{record.id}  {subject.model} on {subject.profile or '?'}, vLLM {subject.vllm_version}, "
        f"{best.tokens_per_s.median:.1f} tok/s at {best.concurrency}"
    )


def _median_speed(row: Row) -> float:
    return row.tokens_per_s.median


def compare_measured(records: Sequence[BenchRecord], old: Side | None) -> ComparedSides | None:
    """Compare two records that were measured in turn, or one record with `old`.

    Return None without a second side.
    """
    record, *others = records
    if others:
        return compare_sides(of_record(others[0]), of_record(record))
    if old:
        return compare_sides(old, of_record(record))
    return None


# Of the environment of the engine's Python: a shell has these, and a key is not printed.
_NOT_PRINTED = ("PATH", "HOME", "LANG", "OPENAI_API_KEY")


class TypedBench(NamedTuple):
    """A run of the first concurrency as a person can type it.

    dataset: the text of the file of prompts; "" for random tokens. needs_key: OPENAI_API_KEY must be exported.
    """

    command: tuple[str, ...]
    dataset: str
    needs_key: bool


def typed_bench(deployment: DeploymentRef, settings: Settings, prompts: Path, report: Reporter) -> TypedBench:
    """Return a run of the first concurrency for a shell. prompts: the file that will have the dataset.

    Raises BadInputError when nothing runs.
    """
    _, endpoint = running_endpoint(deployment, report)
    variables = [
        f"{name}={value}" for name, value in endpoint.environment.items() if name not in _NOT_PRINTED
    ]
    dataset = settings.dataset(settings.concurrency[0] * settings.requests, 0)
    program = (*endpoint.python, "-m", "vllm.entrypoints.cli.main", *_command(endpoint, settings)[1:])
    if variables:
        program = ("env", *variables, *program)
    if dataset:
        program = (*program, "--dataset-path", str(prompts))
    return TypedBench(program, dataset, "OPENAI_API_KEY" in endpoint.environment)


def _command(endpoint: Endpoint, settings: Settings) -> tuple[str, ...]:
    first = settings.concurrency[0]
    arguments = settings.arguments(first, first * settings.requests, 0)
    return ("vllm", "bench", "serve", *bench_options(endpoint, arguments))


def run_sweep(
    deployments: Sequence[DeploymentRef], settings: Settings, report: Reporter
) -> list[BenchRecord]:
    """Measure running deployments in turn, and save a record of each, also of a sweep that ends early.

    Raises BadInputError, EnvironmentUnfitError, NetworkError.
    """
    started = datetime.now(UTC)
    endpoints = []
    headers = []
    for deployment in deployments:
        plan, endpoint = running_endpoint(deployment, report)
        endpoints.append(endpoint)
        headers.append(_header(plan, endpoint, settings, started, own_model=_own_model(deployment, plan)))
        others = requests_in_flight(plan, deployment)
        if others:
            report.say(
                f"busy     {deployment.name} is already busy ({others} requests): "
                "the results reflect only the remaining capacity"
            )
    folder = deployments[0].directory.bench
    private_folder(folder)
    rounds: list[tuple[Run, ...]] = []
    try:
        for runs in sweep(endpoints, settings, report.say):
            rounds.append(runs)
    except (DeployError, KeyboardInterrupt) as error:
        if rounds:
            save_records(folder, headers, rounds, report, stopped=str(error) or "interrupted")
        raise
    return save_records(folder, headers, rounds, report)


def _own_model(deployment: DeploymentRef, plan: LaunchPlan) -> ModelSpec | None:
    release = Releases(deployment.directory.deployment(deployment.name)).get(plan.hash)
    return asked_model(release) if release else None


def _header(
    plan: LaunchPlan,
    endpoint: Endpoint,
    settings: Settings,
    started: datetime,
    *,
    own_model: ModelSpec | None = None,
) -> RecordHeader:
    return RecordHeader(
        **dict(record_base(plan, started)),
        settings=settings,
        command=tuple(map(without_home, _command(endpoint, settings))),
        ceilings=ceilings_of(plan, settings, own_model),
    )


def save_records(
    folder: Path,
    headers: Sequence[RecordHeader],
    rounds: Sequence[tuple[Run, ...]],
    report: Reporter,
    *,
    stopped: str = "",
) -> list[BenchRecord]:
    """Save one record for each header. rounds: one run for each header, in turn.

    stopped: the reason why the sweep ended early. Raises EnvironmentUnfitError.
    """
    found = []
    for header, runs in zip(headers, zip(*rounds, strict=True), strict=True):
        others = [other.id for other in headers if other is not header]
        record = header.record(runs=runs, stopped=stopped, beside=others[0] if others else None)
        report.say(f"record   {records.save(folder, record)}")
        found.append(record)
    return found


def find_record(state_dir: Path | None, name: str) -> BenchRecord:
    """Return a record by its id, the beginning of it, a file, or `last`.

    Raises BadInputError, IntegrityError.
    """
    return records.load(records.find(state_directory(state_dir).bench, name))


def all_records(state_dir: Path | None, report: Reporter) -> list[BenchRecord]:
    """Return every record, oldest first. A damaged one is reported and left out."""
    folder = state_directory(state_dir).bench
    found = []
    for name in records.ids(folder):
        try:
            found.append(records.load(folder / f"{name}.json"))
        except DeployError as error:
            report.say(f"damaged  {error.message}")
    return found
