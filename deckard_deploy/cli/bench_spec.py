"""`bench spec`: with how many drafted tokens this machine is fastest, or without any."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from deckard_deploy import __version__
from deckard_deploy.cli.bench_host import host_facts
from deckard_deploy.cli.bench_measure import measured, numbers, repeats
from deckard_deploy.cli.bench_subject import current_release, refuse_foreign_certificate, subject_of
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.prepare import stored_release
from deckard_deploy.cli.site import open_site
from deckard_deploy.cli.state import Deployed, deployment_option, start_line
from deckard_deploy.errors import BadInputError, DeployError
from deckard_deploy.measuring import speculation
from deckard_deploy.measuring.records import Record
from deckard_deploy.measuring.speculation import SpecRecord
from deckard_deploy.measuring.workload import Settings
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import Site, bring_up, observe
from deckard_deploy.running.lock import held

_OPTION, _TOKENS = "--speculative-config", "num_speculative_tokens"


@click.command()
@deployment_option
@click.option(
    "--tokens", callback=numbers, default="1,2,3,4,5", show_default=True, help="Numbers of tokens to draft."
)
@click.option("--concurrency", callback=numbers, default="1,4", show_default=True, help="Requests at once.")
@click.option(
    "--runs", type=click.IntRange(2, 100), help="Runs of each concurrency; default: 5 to 15, as they differ."
)
@click.option(
    "--requests", type=click.IntRange(1, 1000), default=2, show_default=True, help="Of each stream in a run."
)
@click.option(
    "--output-tokens", type=click.IntRange(2, 1024), default=300, show_default=True, help="Of an answer."
)
@click.option("--dry-run", is_flag=True, help="Say what would be started, and stop nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def spec(
    deployed: Deployed, *, tokens: tuple[int, ...], dry_run: bool, as_json: bool, **measure: Any
) -> None:
    """Try numbers of drafted tokens, and no drafter; say which is fastest here.

    The endpoint is RESTARTED for each; in the end it runs as before. What a drafter achieves depends on the text, so
    chat requests in English are sent. `plan` shows the result beside its estimate.

    \b
    Example:
      deckard-deploy bench spec --tokens 1,2,4 --concurrency 1,4
    """
    plan = current_release(deployed).plan()
    if _OPTION not in plan.arguments:
        raise BadInputError(
            f"{deployed.name} has no drafter to try", hint=f"{start_line(deployed)} --drafter NAME"
        )
    refuse_foreign_certificate(plan)
    settings = Settings(**{**measure, **repeats(measure["runs"])})
    if dry_run:
        say(
            f"would    restart plan {plan.hash} without its drafter, then drafting {', '.join(map(str, tokens))}"
        )
        return
    with held(deployed.directory.create(deployed.name), verb="bench spec"):
        record = _judged(plan, settings, dict(_sweeps(deployed, plan, settings, (0, *tokens))))
    folder = deployed.directory.bench / "spec"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    say(f"record   {speculation.save(folder, record)}")
    if as_json:
        click.echo(record.model_dump_json(indent=2))
        return
    table(speculation.cells(record))
    click.echo(speculation.advice(record))


def _sweeps(
    deployed: Deployed, plan: "LaunchPlan", settings: "Settings", tokens: tuple[int, ...]
) -> "Iterator[tuple[int, Record]]":

    with open_site(deployed.directory, deployed.name, say, also=plan.runtime) as site:
        try:
            for number in tokens:
                say(f"start    drafting {number}" if number else "start    without a drafter")
                _start(site, drafting(plan, number))
                yield number, measured([deployed], settings)[0]
        except (DeployError, KeyboardInterrupt):
            say("back     to what ran before; ^C again leaves it as it is now")
            _start(site, plan)
            raise
        _start(site, plan)


def _start(site: "Site", plan: "LaunchPlan") -> None:

    current = site.releases.current()
    if current and current.plan_hash == plan.hash and observe(site.runtimes).plan_hash == plan.hash:
        return
    bring_up(site, *stored_release(plan, site.releases))


def drafting(plan: "LaunchPlan", tokens: int) -> "LaunchPlan":
    """The plan with another number of drafted tokens; 0: without its drafter, all else the same."""
    at = plan.arguments.index(_OPTION)
    config = json.loads(plan.arguments[at + 1]) | {_TOKENS: tokens}
    option = (_OPTION, json.dumps(config, sort_keys=True, separators=(",", ":"))) if tokens else ()
    return plan.model_copy(update={"arguments": (*plan.arguments[:at], *option, *plan.arguments[at + 2 :])})


def _judged(plan: "LaunchPlan", settings: "Settings", sweeps: "dict[int, Record]") -> "SpecRecord":

    off = sweeps.pop(0)
    attempts = tuple(speculation.tried(number, record, off) for number, record in sweeps.items())
    now = datetime.now(UTC)
    return speculation.SpecRecord(
        id=f"{now:%Y%m%d-%H%M%S}-{plan.hash}",
        made_at=now.isoformat("T", "seconds"),
        tool_version=__version__,
        subject=subject_of(plan),
        host=host_facts(),
        settings=settings,
        off=off.id,
        off_tokens_per_s=speculation.medians(off),
        tried=attempts,
        recommended=speculation.recommended(attempts),
    )
