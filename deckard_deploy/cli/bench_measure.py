"""One sweep of what runs, as `bench` and `bench spec` both make it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from deckard_deploy.cli.output import say

if TYPE_CHECKING:
    from deckard_deploy.cli.state import Deployed
    from deckard_deploy.measuring.engine_bench import Endpoint
    from deckard_deploy.measuring.records import Record
    from deckard_deploy.measuring.workload import Settings


def numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """`1,2,4` as an option's value. Raises click.BadParameter."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) <= 4096 for word in words):
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,2,4", param=option)
    return tuple(sorted({int(word) for word in words}))


def command_of(deployed: "Deployed", settings: "Settings") -> tuple[str, ...]:
    """What a person would type for one run of the first concurrency. Raises BadInputError when nothing runs."""
    from deckard_deploy.cli.bench_subject import running_endpoint  # noqa: PLC0415  not for --help

    return _command(running_endpoint(deployed)[1], settings)


def _command(endpoint: "Endpoint", settings: "Settings") -> tuple[str, ...]:
    from deckard_deploy.measuring.engine_bench import argv_of  # noqa: PLC0415  not for --help

    first = settings.concurrency[0]
    return ("vllm", "bench", "serve", *argv_of(endpoint, settings.arguments(first, first * settings.requests, 0)))


def measured(deployed: "Deployed", settings: "Settings") -> "Record":
    """Measure what runs, and keep the record. Raises BadInputError, EnvironmentUnfitError, NetworkError."""
    from deckard_deploy import __version__  # noqa: PLC0415  not for --help
    from deckard_deploy.cli import bench_host, bench_subject  # noqa: PLC0415  same
    from deckard_deploy.measuring import records  # noqa: PLC0415  same
    from deckard_deploy.measuring.sweep import sweep  # noqa: PLC0415  same
    from deckard_deploy.running.files import private_folder  # noqa: PLC0415  same

    plan, endpoint = bench_subject.running_endpoint(deployed)
    private_folder(deployed.directory.bench)
    started = datetime.now(UTC)
    record = records.Record(
        id=f"{started:%Y%m%d-%H%M%S}-{plan.hash}",
        made_at=started.isoformat("T", "seconds"),
        tool_version=__version__,
        subject=bench_subject.subject_of(plan),
        settings=settings,
        command=_command(endpoint, settings),
        runs=tuple(sweep(endpoint, settings, say)),
        ceilings=bench_subject.ceilings_of(plan, settings),
        host=bench_host.host_facts(),
    )
    say(f"record   {records.save(deployed.directory.bench, record)}")
    return record
