"""`bench startup`: start the deployment again and again, with compiled kernels kept and without."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from stat import S_IMODE
from tempfile import mkdtemp
from typing import Literal

import click

from deckard_deploy import __version__
from deckard_deploy.cli.bench_host import host_facts
from deckard_deploy.cli.bench_subject import current_release, subject_of
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.prepare import stored_release
from deckard_deploy.cli.site import open_site
from deckard_deploy.cli.state import Deployed, deployment_option
from deckard_deploy.errors import DeployError, EnvironmentUnfitError
from deckard_deploy.measuring import startup_records as startups
from deckard_deploy.measuring.startup_records import StartupRecord, Timed
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import Site, bring_up
from deckard_deploy.running.lock import held
from deckard_deploy.startup import history
from deckard_deploy.startup.phases import ORDER
from deckard_deploy.system.files import remove_folder, temporary_prefix, writing


@click.command()
@deployment_option
@click.option("--runs", type=click.IntRange(1, 20), default=2, show_default=True, help="Starts of each kind.")
@click.option("--dry-run", is_flag=True, help="Say what would be started, and stop nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def startup(deployed: Deployed, *, runs: int, dry_run: bool, as_json: bool) -> None:
    """Time starts by phase, with the compile caches and without.

    The endpoint is RESTARTED for each, first with empty caches, then with those that are there; in the end it runs as
    before. What is learnt, `up` shows as the time that is left.

    \b
    Example:
      deckard-deploy bench startup --runs 3
    """
    plan = current_release(deployed).plan()
    if dry_run:
        say(
            f"would    restart plan {plan.hash} {runs} times without {_listed(_caches(plan))}, then {runs} times with"
        )
        return
    lock = held(deployed.directory.create(deployed.name), verb="bench startup")
    with lock, open_site(deployed.directory, deployed.name, say, also=plan.runtime) as site:
        record = _record(plan, tuple(_starts(deployed, site, plan, runs)))
    folder = deployed.directory.bench / "startups"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    say(f"record   {startups.save(folder, record)}")
    if as_json:
        click.echo(record.model_dump_json(indent=2))
    else:
        table(startups.cells(record.starts, [str(phase) for phase in ORDER]))


def _record(plan: "LaunchPlan", starts: "tuple[Timed, ...]") -> "StartupRecord":

    now = datetime.now(UTC)
    return StartupRecord(
        id=f"{now:%Y%m%d-%H%M%S}-{plan.hash}",
        made_at=now.isoformat("T", "seconds"),
        tool_version=__version__,
        subject=subject_of(plan),
        host=host_facts(),
        starts=starts,
    )


def _starts(deployed: Deployed, site: "Site", plan: "LaunchPlan", runs: int) -> "Iterator[Timed]":

    try:
        for number in range(runs):
            say(f"start    {number + 1} of {runs} with empty caches")
            with _empty(_caches(plan)):
                yield _timed(deployed, site, plan, "empty")
        for number in range(runs):
            say(f"start    {number + 1} of {runs} with the caches that are there")
            yield _timed(deployed, site, plan, "kept")
    except (DeployError, KeyboardInterrupt):
        say("back     to what ran before; ^C again leaves it as it is now")
        # What was interrupted runs on caches that are gone.
        bring_up(site, *stored_release(plan, site.releases))
        raise


def _timed(deployed: Deployed, site: "Site", plan: "LaunchPlan", caches: Literal["empty", "kept"]) -> "Timed":
    """Start the plan anew; how long it took is what `up` would remember of it."""

    def starts() -> "tuple[history.Start, ...]":
        return history.starts_like(
            deployed.directory.startups, profile=plan.profile, model=plan.model, engine=plan.engine
        )

    before = starts()
    bring_up(site, *stored_release(plan, site.releases))
    after = starts()
    if after == before:
        raise EnvironmentUnfitError(
            f"{deployed.name} started, but how long it took was not written to {deployed.directory.startups}",
            hint="deckard-deploy bench startup",
        )
    last = after[-1]
    return Timed(
        caches=caches, total_s=last.total_s, phases={str(name): s for name, s in last.durations.items()}
    )


def _caches(plan: "LaunchPlan") -> list[Path]:
    """Where this plan's engine keeps what it compiles, on this host."""
    mounted = [Path(mount.source) for mount in plan.mounts if not mount.read_only]
    own = plan.environment.get("VLLM_CACHE_ROOT") if plan.runtime == "process" else None
    return [*mounted, *([Path(own)] if own else [])]


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders)) or "any cache"


@contextmanager
def _empty(folders: Sequence[Path]) -> Iterator[None]:
    """Empty folders in their place; afterwards the old ones are back, with what they held.

    Raises EnvironmentUnfitError. Files of a container's user, which are not ours to remove, are no error.
    """
    used: list[Path] = []
    try:
        with ExitStack() as stack:  # one that cannot come back keeps no other away
            for folder in folders:
                stack.enter_context(_replaced(folder, used))
            yield
    finally:
        for folder in used:
            _remove_used(folder)


@contextmanager
def _replaced(folder: Path, used: list[Path]) -> Iterator[None]:
    """One of them, if it is there. used: where the folders are now that stood in its place."""
    aside = folder.with_name(f"{folder.name}.kept")
    if not folder.is_dir() and not aside.is_dir():
        yield
        return
    try:
        with writing(folder):
            if not aside.is_dir():
                folder.rename(aside)
            elif folder.is_dir():  # one that was killed left it: what lies aside are the old ones
                used.append(_out_of_the_way(folder))
            folder.mkdir()
            folder.chmod(S_IMODE(aside.stat().st_mode))  # the container's user may not be the caller
        yield
    finally:
        with writing(folder):
            if aside.is_dir():
                if folder.is_dir():
                    used.append(_out_of_the_way(folder))
                aside.rename(folder)


def _out_of_the_way(folder: Path) -> Path:
    """The folder under a name that nothing else has. Raises OSError."""
    return folder.rename(mkdtemp(prefix=f"{temporary_prefix()}{folder.name}-", dir=folder.parent))


def _remove_used(folder: Path) -> None:

    try:
        remove_folder(folder)
    except EnvironmentUnfitError as error:
        say(f"left     {error.message}, so remove it yourself: sudo rm -r {folder}")
