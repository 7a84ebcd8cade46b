"""`bench`: measure the running endpoint, keep the record, show and compare records."""

import json
import shlex
from pathlib import Path
from typing import Any

import click

from deckard_deploy.cli import bench_compare, bench_report, bench_spec, bench_startup
from deckard_deploy.cli.bench_measure import command_of, measured, numbers, repeats
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.state import Deployed, chosen, state, state_option
from deckard_deploy.errors import DeployError
from deckard_deploy.measuring import figures, records
from deckard_deploy.measuring.records import Record
from deckard_deploy.measuring.report import markdown
from deckard_deploy.measuring.tables import cells, notes
from deckard_deploy.measuring.workload import Settings

# The card: "E4B drafter, 5 speculative tokens, 300 max tokens per request", at 1, 2 and 4 at once.
PRESETS: dict[str, dict[str, Any]] = {
    "seed": {"workload": "text", "concurrency": (1, 2, 4), "output_tokens": 300},
}


@click.group(invoke_without_command=True)
@click.option(
    "-n", "--name", "-p", "--profile", "name", help="Name of the deployment; not needed with only one."
)
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="seed: as the model card measured.")
@click.option(
    "--concurrency", callback=numbers, metavar="N,N,…", help="Requests at once; default: 1,2,4,8,16."
)
@click.option(
    "--runs", type=click.IntRange(2, 100), help="Runs of each concurrency; default: 5 to 15, as they differ."
)
@click.option(
    "--requests", type=click.IntRange(1, 1000), help="Requests of each stream in a run; default: 2."
)
@click.option(
    "--workload", type=click.Choice(("text", "random")), help="English, or random tokens; default: text."
)
@click.option("--output-tokens", type=click.IntRange(2, 1024), help="Most tokens of an answer; default: 300.")
@click.option(
    "--input-tokens", type=click.IntRange(8, 1 << 20), help="Random tokens of a prompt; default: 256."
)
@click.option(
    "--compare", "against", metavar="NAME", help="Then compare with a record or a published table: seed."
)
@click.option(
    "--beside", metavar="NAME", help="Another deployment that runs, measured in turn, to compare with."
)
@click.option("--dry-run", is_flag=True, help="Say what would be run, and run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@state_option
@click.pass_context
def bench(context: click.Context, /, *, name: str | None, state_dir: Path | None, **options: Any) -> None:
    """Measure the running endpoint with its engine's own benchmark.

    `vllm bench serve` of the running engine sends the requests, each run with prompts that the server has not seen.
    The record lies in the state directory; `bench list` and `bench show` print it again.

    \b
    Example:
      deckard-deploy bench --preset seed
    """
    if context.invoked_subcommand is None:
        flags = {key: options.pop(key) for key in ("dry_run", "as_json", "against")}
        deployed, beside = chosen(state_dir, name), options.pop("beside")
        both = [deployed, *([chosen(state_dir, beside)] if beside else [])]
        if beside == deployed.name:
            raise click.BadParameter("a deployment cannot be measured beside itself", param_hint="--beside")
        _measure(both, _settings(**options), **flags)


def _settings(*, preset: str | None, runs: int | None, **asked: Any) -> "Settings":

    given = {key: value for key, value in asked.items() if value is not None}
    return Settings(**{**PRESETS.get(preset or "", {}), **given, **repeats(runs)})


def _measure(
    deployments: list[Deployed], settings: "Settings", *, dry_run: bool, as_json: bool, against: str | None
) -> None:
    deployed = deployments[0]
    old = bench_compare.side(deployed.directory.bench, against) if against else None
    if dry_run:
        at = ", ".join(map(str, settings.concurrency))
        say(f"would    run this {settings.counted} times at each of {at} at once:")
        click.echo(shlex.join(command_of(deployed, settings)))
        return
    record, *others = measured(deployments, settings)
    for each in (record, *others):
        _print(each, as_json=as_json)
    old = bench_compare.of_record(others[0]) if others else old
    if old and not as_json:
        click.echo()
        bench_compare.show(old, bench_compare.of_record(record), as_json=False)


bench.add_command(bench_compare.compare)
bench.add_command(bench_report.report)
bench.add_command(bench_startup.startup)
bench.add_command(bench_spec.spec)


@bench.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_option
def list_records(as_json: bool, state_dir: Path | None) -> None:  # noqa: FBT001  click passes flags so
    """List the records, oldest first.

    \b
    Example:
      deckard-deploy bench list
    """
    folder = state(state_dir).bench
    found = []
    for name in records.ids(folder):
        try:
            found.append(records.load(folder / f"{name}.json"))
        except DeployError as error:  # the others are worth no less
            say(f"damaged  {error.message}")
    if as_json:
        click.echo(
            json.dumps(
                [record.model_dump(mode="json", exclude={"runs", "host"}) for record in found], indent=2
            )
        )
        return
    for record in found:
        best = max(figures.rows(record), key=lambda row: row.tokens_per_s.median)
        subject = record.subject
        click.echo(
            f"{record.id}  {subject.model} on {subject.profile or '?'}, vLLM {subject.vllm_version}, "
            f"{best.tokens_per_s.median:.1f} tok/s at {best.concurrency}"
        )


@bench.command()
@click.argument("record", default="last")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print it as markdown, for a model card.")
@state_option
def show(record: str, *, as_json: bool, as_markdown: bool, state_dir: Path | None) -> None:
    """Show a record: an id, its beginning, a file, or `last`.

    \b
    Example:
      deckard-deploy bench show last
    """
    found = records.load(records.find(state(state_dir).bench, record))
    if as_markdown:
        click.echo(markdown(found), nl=False)
    else:
        _print(found, as_json=as_json)


def _print(record: "Record", *, as_json: bool) -> None:
    if as_json:
        click.echo(record.model_dump_json(indent=2))
        return

    table(cells(record))
    for line in notes(record):
        click.echo(line)
