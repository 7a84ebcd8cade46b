"""One sweep of what runs, as `bench` and `bench spec` both make it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from deckard_deploy import __version__
from deckard_deploy.cli import bench_host, bench_subject
from deckard_deploy.cli.bench_subject import others_at_work, running_endpoint
from deckard_deploy.cli.output import say
from deckard_deploy.cli.state import Deployed
from deckard_deploy.errors import DeployError
from deckard_deploy.measuring import records
from deckard_deploy.measuring.engine_bench import Endpoint, argv_of
from deckard_deploy.measuring.records import Record, Run
from deckard_deploy.measuring.sweep import sweep
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.system.files import private_folder


def numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """`1,2,4` as an option's value. Raises click.BadParameter."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and len(word) <= 4 and 0 < int(word) <= 4096 for word in words):
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,2,4", param=option)
    return tuple(sorted({int(word) for word in words}))


def repeats(runs: int | None) -> dict[str, int]:
    """How many runs: as many as were asked for, or from five on until their mean is sure."""
    return {"runs": runs, "most_runs": runs} if runs else {"runs": 5, "most_runs": 15}


def command_of(deployed: "Deployed", settings: "Settings") -> tuple[str, ...]:
    """What a person would type for one run of the first concurrency. Raises BadInputError when nothing runs."""
    return _command(running_endpoint(deployed)[1], settings)


def _command(endpoint: "Endpoint", settings: "Settings") -> tuple[str, ...]:

    first = settings.concurrency[0]
    return (
        "vllm",
        "bench",
        "serve",
        *argv_of(endpoint, settings.arguments(first, first * settings.requests, 0)),
    )


def measured(deployments: "Sequence[Deployed]", settings: "Settings") -> "list[Record]":
    """Measure what runs, of several deployments in turn, and keep a record of each; of a sweep that ends early too.

    Raises BadInputError, EnvironmentUnfitError, NetworkError.
    """
    running = [running_endpoint(deployed) for deployed in deployments]
    for deployed, (plan, _) in zip(deployments, running, strict=True):
        if others := others_at_work(plan, deployed):
            say(
                f"busy     {deployed.name} answers {others} requests of others: the figures are of what they leave"
            )
    folder = deployments[0].directory.bench
    private_folder(folder)
    begun = [_begun(plan, endpoint, settings) for plan, endpoint in running]
    rounds: list[tuple[Run, ...]] = []
    try:
        for runs in sweep([endpoint for _, endpoint in running], settings, say):
            rounds.append(runs)
    except (DeployError, KeyboardInterrupt) as error:
        if rounds:
            _kept(folder, begun, rounds, str(error) or "interrupted")
        raise
    return _kept(folder, begun, rounds)


def _begun(plan: "LaunchPlan", endpoint: "Endpoint", settings: "Settings") -> "Record":

    started = datetime.now(UTC)
    return Record(
        id=f"{started:%Y%m%d-%H%M%S}-{plan.hash}",
        made_at=started.isoformat("T", "seconds"),
        tool_version=__version__,
        subject=bench_subject.subject_of(plan),
        settings=settings,
        command=_command(endpoint, settings),
        runs=(),
        ceilings=bench_subject.ceilings_of(plan, settings),
        host=bench_host.host_facts(),
    )


def _kept(
    folder: "Path", begun: "Sequence[Record]", rounds: "Sequence[tuple[Run, ...]]", ended: str = ""
) -> "list[Record]":

    # A server's own words may be in it.
    reason = "".join(letter for letter in " ".join(ended.split()) if letter.isprintable())[:500]
    found = []
    for record, runs in zip(begun, zip(*rounds, strict=True), strict=True):
        others = [other.id for other in begun if other is not record]
        more = {"runs": runs, "ended": reason, "beside": others[0] if others else None}
        found.append(record.model_copy(update=more))
        say(f"record   {records.save(folder, found[-1])}")
    return found
