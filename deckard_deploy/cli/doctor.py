"""`doctor`: what is wrong with this machine, before anything is spent; and the part of it that `up` asks for."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli.host_facts import facts_of_host
from deckard_deploy.cli.host_plan import plan_for
from deckard_deploy.cli.options import resolve_choice
from deckard_deploy.cli.output import say
from deckard_deploy.cli.site import open_site
from deckard_deploy.cli.state import knowing_home, state, state_option
from deckard_deploy.doctor import facts as fact_files
from deckard_deploy.doctor.findings import Finding
from deckard_deploy.doctor.judge import judge
from deckard_deploy.doctor.target import Folders, Target, target_of
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.deploy import observe
from deckard_deploy.running.layout import StateDir

WIDTH = 80
_COLOURS = {"fail": "red", "warn": "yellow", "info": "cyan", "ok": "green"}


@click.command()
@click.option(
    "-p", "--profile", metavar="NAME|FILE", help="Judge for this profile; default: what concerns any."
)
@click.option(
    "-c", "--config", type=click.Path(path_type=Path), help="Default: ./deckard.yaml, if there is one."
)
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Override a setting or a vLLM option."
)
@click.option("--compat", metavar="NAME", help="Judge somebody's own launch line; known: seed.")
@click.option(
    "--facts", "source", type=click.Path(path_type=Path), help="Judge facts that were saved, not this host."
)
@click.option(
    "--save", "saved", type=click.Path(path_type=Path), help="Also write the facts that were read, as JSON."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@state_option
def doctor(
    *, source: Path | None, saved: Path | None, as_json: bool, state_dir: Path | None, **chosen: Any
) -> int:
    """Look for what is wrong with this machine.

    Nothing is changed and nothing needs root. Exit code 3 when something would stop the deployment.

    \b
    Example:
      deckard-deploy doctor --profile spark
    """
    target = _target(state(state_dir), here=source is None, **chosen)
    facts = fact_files.load(source) if source else facts_of_host(target)
    if saved:
        fact_files.save(facts, saved)
    findings = judge(facts, target)
    failed = any(finding.severity == "fail" for finding in findings)
    if as_json:
        said = {
            "profile": target.profile,
            "failed": failed,
            "findings": [vars(finding) for finding in findings],
        }
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        _print(findings)
    return 3 if failed else 0


def refuse_unfit(resolved: "Resolved", plan: "LaunchPlan", directory: "StateDir", *, force: bool) -> None:
    """What `up` asks before it spends anything on a GPU and docker: the fails that would stop it.

    Raises EnvironmentUnfitError that names them, unless forced; they are said all the same.
    """
    if plan.gpus is None or plan.runtime != "docker":
        return
    running = _running_plan(directory, plan)
    if running == plan.hash:
        return  # nothing is going to be spent

    target = target_of(resolved, plan, models=directory.models, running=running is not None)
    findings = judge(facts_of_host(target, quick=True), target, before_up=True)
    for finding in findings:
        say(f"doctor   {finding.rule}: {finding.what}\n           try: {finding.fix}")
    if findings and not force:
        names = ", ".join(finding.rule for finding in findings)
        raise EnvironmentUnfitError(
            f"this machine does not fit {plan.profile}: {names}",
            hint=f"deckard-deploy doctor --profile {plan.profile}, or go on all the same: deckard-deploy up --force",
        )


def _target(directory: "StateDir", *, here: bool, **chosen: Any) -> "Target":

    if not any(chosen.values()) and not Path("deckard.yaml").is_file():
        with knowing_home():
            own = [Path.home() / folder for folder in (".cache/vllm", ".cache/flashinfer", ".triton/cache")]
        return Target(folders=Folders(weights=directory.models, caches=tuple(own)))

    resolved = resolve_choice(**chosen)
    plan = plan_for(resolved, directory)
    running = here and _running_plan(directory, plan) is not None
    with knowing_home():
        return target_of(resolved, plan, models=directory.models, running=running)


def _running_plan(directory: "StateDir", plan: "LaunchPlan") -> str | None:
    """The hash of the plan that the deployment runs, "" of an unknown one, None when nothing runs. Nothing is made."""
    if plan.deployment not in directory.deployments():
        return None
    try:
        with open_site(directory, plan.deployment, say) as site:
            seen = observe(site.runtimes)
    except EnvironmentUnfitError:
        return None  # docker does not answer, which the rules say
    return (seen.plan_hash or "") if seen.state in ("running", "restarting") else None


def _print(findings: "Sequence[Finding]") -> None:
    names = max((len(finding.rule) for finding in findings), default=0)
    for finding in findings:
        severity = finding.severity.value
        _paragraph(f"{severity:4}  {finding.rule:{names}}  ", finding.what, colour=_COLOURS[severity])
        if severity != "ok":
            _paragraph("      why  ", f"{finding.why} ({finding.source})")
        if finding.fix:
            _paragraph("      fix  ", finding.fix)
    counts = {name: sum(finding.severity == name for finding in findings) for name in _COLOURS}
    click.echo("\n" + ", ".join(f"{count} {name}" for name, count in counts.items() if count))


def _paragraph(label: str, text: str, *, colour: str | None = None) -> None:
    text = "".join(letter if letter.isprintable() else " " for letter in text)  # facts may be somebody else's
    lines = textwrap.wrap(text, WIDTH - len(label), break_long_words=False, break_on_hyphens=False) or [""]
    click.echo(
        click.style(label[:4], fg=colour, bold=True) + label[4:] + lines[0] if colour else label + lines[0]
    )
    for line in lines[1:]:
        click.echo(" " * len(label) + line)
