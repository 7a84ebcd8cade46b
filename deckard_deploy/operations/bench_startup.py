"""`bench startup`: timed starts, with empty compile caches and with kept ones."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from stat import S_IMODE
from tempfile import mkdtemp
from typing import Literal

from deckard_deploy.errors import DeployError, EnvironmentUnfitError
from deckard_deploy.measuring import startup_records
from deckard_deploy.measuring.startup_records import StartupRecord, TimedStart
from deckard_deploy.operations.bench_target import current_release, record_base
from deckard_deploy.operations.deployments import DeploymentRef, open_deployment, select_engine
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.release import create_release
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import DeploymentContext, deploy
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.startup import history
from deckard_deploy.startup.phases import ORDER
from deckard_deploy.system.files import remove_folder, temporary_prefix, translating_write_errors


def explain(selection: Selection, runs: int) -> str:
    """Return the actions of `run` in one line. Raises BadInputError."""
    deployment = select_engine(selection)
    plan = current_release(deployment).plan
    caches = ", ".join(map(str, compile_caches(plan))) or "any cache"
    return f"would    restart plan {plan.hash} {runs} times without {caches}, then {runs} times with"


def table_rows(record: StartupRecord) -> list[tuple[str, ...]]:
    """Return the record as a table: one row a start, one column a phase."""
    return list(startup_records.cells(record.starts, [str(phase) for phase in ORDER]))


def run(selection: Selection, runs: int, report: Reporter) -> StartupRecord:
    """Start the current release `runs` times with empty caches and with kept ones. Return the saved record.

    In the end the endpoint runs as before. Raises BadInputError, EnvironmentUnfitError, DeploymentBusyError,
    and the errors of `deploy`.
    """
    deployment = select_engine(selection)
    plan = current_release(deployment).plan
    with (
        lock_deployment(deployment.directory.create(deployment.name), verb="bench startup"),
        open_deployment(deployment.directory, deployment.name, report, also=plan.runtime) as context,
    ):
        record = _record(plan, tuple(_starts(deployment, context, plan, runs, report)))
    folder = deployment.directory.bench / "startups"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    report.say(f"record   {startup_records.save(folder, record)}")
    return record


def _record(plan: LaunchPlan, starts: tuple[TimedStart, ...]) -> StartupRecord:
    return StartupRecord(
        **dict(record_base(plan, datetime.now(UTC))),
        starts=starts,
    )


def _starts(
    deployment: DeploymentRef, context: DeploymentContext, plan: LaunchPlan, runs: int, report: Reporter
) -> Iterator[TimedStart]:
    try:
        for number in range(runs):
            report.say(f"start    {number + 1} of {runs} with empty caches")
            with emptied(compile_caches(plan), report):
                yield _timed(deployment, context, plan, "empty")
        for number in range(runs):
            report.say(f"start    {number + 1} of {runs} with the caches that are there")
            yield _timed(deployment, context, plan, "kept")
    except (DeployError, KeyboardInterrupt):
        report.say("back     to what ran before; ^C again leaves it as it is now")
        # The interrupted release runs on caches that are gone.
        deploy(context, *create_release(plan, context.releases))
        raise


def _timed(
    deployment: DeploymentRef, context: DeploymentContext, plan: LaunchPlan, caches: Literal["empty", "kept"]
) -> TimedStart:
    """Start a new launch of the plan. Return its time, as `up` would record it."""

    def starts() -> tuple[history.Start, ...]:
        return history.starts_like(
            deployment.directory.startups, profile=plan.profile, model=plan.model, engine=plan.engine
        )

    before = starts()
    deploy(context, *create_release(plan, context.releases))
    after = starts()
    if after == before:
        raise EnvironmentUnfitError(
            f"{deployment.name} started, but how long it took was not written "
            f"to {deployment.directory.startups}",
            hint="deckard-deploy bench startup",
        )
    last = after[-1]
    phases = {str(name): seconds for name, seconds in last.durations.items()}
    return TimedStart(caches=caches, total_s=last.total_s, phases=phases)


def compile_caches(plan: LaunchPlan) -> list[Path]:
    """Return the folders of this host with the compiled kernels of the plan's engine."""
    folders = [Path(mount.source) for mount in plan.mounts if not mount.read_only]
    own = plan.environment.get("VLLM_CACHE_ROOT")
    if own and plan.runtime == "process":
        folders.append(Path(own))
    return folders


@contextmanager
def emptied(folders: Sequence[Path], report: Reporter) -> Iterator[None]:
    """Put empty folders in the place of these. Afterwards the old ones are back, with their content.

    Raises EnvironmentUnfitError. Files of a container's user, which are not ours to remove, are no error.
    """
    used: list[Path] = []
    try:
        with ExitStack() as stack:  # one folder that cannot come back keeps no other away
            for folder in folders:
                stack.enter_context(_replaced(folder, used))
            yield
    finally:
        for folder in used:
            _remove_used(folder, report)


@contextmanager
def _replaced(folder: Path, used: list[Path]) -> Iterator[None]:
    """Replace one folder, if it exists. used: collects the folders that stood in its place."""
    aside = folder.with_name(f"{folder.name}.kept")
    if not folder.is_dir() and not aside.is_dir():
        yield
        return
    try:
        with translating_write_errors(folder):
            if not aside.is_dir():
                folder.rename(aside)
            elif folder.is_dir():  # left by a killed run: the folder aside is the old one
                used.append(_moved_away(folder))
            folder.mkdir()
            folder.chmod(S_IMODE(aside.stat().st_mode))  # the container's user may not be the caller
        yield
    finally:
        with translating_write_errors(folder):
            if aside.is_dir():
                if folder.is_dir():
                    used.append(_moved_away(folder))
                aside.rename(folder)


def _moved_away(folder: Path) -> Path:
    """Rename the folder to a name that nothing else has. Raises OSError."""
    return folder.rename(mkdtemp(prefix=f"{temporary_prefix()}{folder.name}-", dir=folder.parent))


def _remove_used(folder: Path, report: Reporter) -> None:
    try:
        remove_folder(folder)
    except EnvironmentUnfitError as error:
        report.say(f"left     {error.message}, so remove it yourself: sudo rm -r {folder}")
