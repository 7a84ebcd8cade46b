"""`bench`: measure the running endpoint, keep the record, show and compare records."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deckard_deploy import operations
from deckard_deploy.cli import bench_compare, bench_report, bench_spec, bench_startup, screens
from deckard_deploy.cli.names import deployment_names, record_names
from deckard_deploy.cli.options import json_option, numbers, selection_option, state_option
from deckard_deploy.cli.output import say, write_text
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Selection

if TYPE_CHECKING:
    from deckard_deploy.measuring.workload import Settings


@click.group(invoke_without_command=True)
@selection_option
@click.option("--preset", type=click.Choice(["seed"]), help="seed: as the model card measured.")
@click.option(
    "--concurrency",
    callback=numbers,
    metavar="N,N,…",
    help="Numbers of concurrent requests; default: 1,2,4,8,16.",
)
@click.option(
    "--runs",
    type=click.IntRange(2, 100),
    help="Runs of each concurrency; default: 5, and up to 15 if they vary.",
)
@click.option(
    "--requests", type=click.IntRange(1, 1000), help="Requests of each stream in a run; default: 2."
)
@click.option(
    "--workload", type=click.Choice(("text", "random")), help="English, or random tokens; default: text."
)
@click.option(
    "--output-tokens", type=click.IntRange(2, 1024), help="Maximum tokens of an answer; default: 300."
)
@click.option(
    "--input-tokens", type=click.IntRange(8, 1 << 20), help="Random tokens of a prompt; default: 256."
)
@click.option(
    "--compare",
    "against",
    metavar="NAME",
    help="Compare the result with a record or a published table: seed.",
)
@click.option(
    "--beside",
    metavar="NAME",
    shell_complete=deployment_names,
    help="Another deployment that runs, measured in turn, to compare with.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be run, and run nothing.")
@click.option(
    "--save-prompts",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --dry-run: write the prompts that the printed command reads.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.pass_context
def bench(
    context: click.Context,
    /,
    *,
    selection: Selection,
    against: str | None,
    beside: str | None,
    dry_run: bool,
    **more: Any,
) -> None:
    """Measure the running endpoint with its engine's own benchmark.

    `vllm bench serve` of the running engine sends the requests, each run with prompts that the server has not
    seen. The record is kept in the state directory; `bench list` and `bench show` print it again.

    \b
    Example:
      deckard-deploy bench --preset seed
    """
    if context.invoked_subcommand is not None:
        return

    as_json = more.pop("as_json")
    save_prompts = more.pop("save_prompts")
    settings = operations.bench.sweep_settings(**more)
    deployments = operations.bench.select(selection, beside)
    # Before the sweep, so that a wrong name does not cost one.
    old = operations.bench_compare.find_named(against, selection.state_dir) if against else None
    if dry_run:
        _print_command(deployments[0], settings, save_prompts)
        return
    records = operations.bench.run_sweep(deployments, settings, TERMINAL)
    for record in records:
        screens.bench.print_record(record, as_json=as_json)
    compared = operations.bench.compare_measured(records, old)
    if compared and not as_json:
        click.echo()
        screens.bench.print_comparison(compared)


def _print_command(
    deployment: "operations.deployments.DeploymentRef",
    settings: "Settings",
    save_prompts: Path | None,
) -> None:
    typed = operations.bench.typed_bench(deployment, settings, save_prompts or Path("prompts.json"), TERMINAL)
    concurrency = ", ".join(map(str, settings.concurrency))
    say(f"dry run: would run this {settings.counted} times at each concurrency of {concurrency}:")
    if typed.needs_key:
        say("         it needs a key of the gateway: export OPENAI_API_KEY=…")
    if typed.dataset and save_prompts:
        write_text(typed.dataset, save_prompts)
    elif typed.dataset:
        say("         it reads prompts.json, which --save-prompts prompts.json writes")
    click.echo(shlex.join(typed.command))


bench.add_command(bench_compare.compare)
bench.add_command(bench_report.report)
bench.add_command(bench_startup.startup)
bench.add_command(bench_spec.spec)


@bench.command("list")
@json_option
@state_option
def list_records(*, as_json: bool, state_dir: Path | None) -> None:
    """List the records, oldest first.

    \b
    Example:
      deckard-deploy bench list
    """
    found = operations.bench.all_records(state_dir, TERMINAL)
    if as_json:
        shown = [record.model_dump(mode="json", exclude={"runs", "host"}) for record in found]
        click.echo(json.dumps(shown, indent=2))
        return
    for record in found:
        click.echo(operations.bench.summary_line(record))
    if not found:
        say("no records: measure with deckard-deploy bench")


@bench.command()
@click.argument("record", default="last", shell_complete=record_names)
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print it as markdown, for a model card.")
@state_option
def show(record: str, *, as_json: bool, as_markdown: bool, state_dir: Path | None) -> None:
    """Show a record: an id, its beginning, a file, or `last`.

    \b
    Example:
      deckard-deploy bench show last
    """
    found = operations.bench.find_record(state_dir, record)
    if as_markdown:
        click.echo(operations.bench.markdown_text(found), nl=False)
    else:
        screens.bench.print_record(found, as_json=as_json)
