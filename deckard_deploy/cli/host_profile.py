"""Profiles held against this machine: `profiles here`, and what `up` and `plan` take when none is named."""

import json
import textwrap
from pathlib import Path

import click

from deckard_deploy.catalog import library, listing
from deckard_deploy.cli.host_facts import facts_of_host
from deckard_deploy.cli.output import say
from deckard_deploy.cli.state import knowing_home
from deckard_deploy.doctor import facts as fact_files
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.fitting import Fit, fit, made_for
from deckard_deploy.doctor.target import Folders, Target
from deckard_deploy.errors import EnvironmentUnfitError

WIDTH = 80


@click.command()
@click.option(
    "--facts", "source", type=click.Path(path_type=Path), help="Judge facts that `doctor --save` wrote."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def here(source: Path | None, *, as_json: bool) -> None:
    """Say which profiles this machine can run.

    `up` takes the one that is made for it when none is named. Disk and port are left to `doctor --profile NAME`.

    \b
    Example:
      deckard-deploy profiles here
    """
    facts = fact_files.load(source) if source else _facts()
    fits = _fits(facts)
    try:
        default = made_for(facts, fits).profile
        taken = f"`up` and `plan` take {default} when no profile is named."
    except EnvironmentUnfitError as error:
        default, taken = None, f"{error.message}; try: {error.hint}"
    if as_json:
        click.echo(json.dumps({"default": default, "profiles": [vars(each) for each in fits]}, indent=2))
        return
    for line in _lines(fits):
        click.echo(line)
    click.echo()
    for line in textwrap.wrap(taken, WIDTH):
        click.echo(line)


def profile_of_this_host() -> str:
    """The profile that is made for this machine, said with the reason. Raises EnvironmentUnfitError."""
    facts = _facts()
    chosen = made_for(facts, _fits(facts))
    why = chosen.why if facts.gpus else "no NVIDIA GPU here, so a tiny model to rehearse with"
    say(f"profile  {chosen.profile}: {why}; another: --profile NAME")
    return chosen.profile


def _facts() -> "HostFacts":

    with knowing_home():
        home = Path.home()
    return facts_of_host(Target(folders=Folders(weights=home, caches=())), quick=True)


def _fits(facts: "HostFacts") -> "list[Fit]":
    """The one that is made for the machine first, what cannot run last."""
    fits = [fit(library.profile(name), facts) for name in listing.names("profiles")]
    order = ("runs", "with changes", "no")
    return sorted(fits, key=lambda each: (not each.made_for_it, order.index(each.verdict), each.profile))


def _lines(fits: "list[Fit]") -> list[str]:
    """80 columns. Facts may be somebody else's: nothing of them may reach the terminal as a command."""
    names, verdicts = (max(len(getattr(each, what)) for each in fits) for what in ("profile", "verdict"))
    lines = []
    for each in fits:
        label = f"{each.profile:{names}}  {each.verdict:{verdicts}}  "
        texts = (each.why, *(f"first: {change}" for change in each.changes))
        for number, text in enumerate(texts):
            shown = "".join(letter if letter.isprintable() else " " for letter in text)
            wrapped = textwrap.wrap(shown, WIDTH - len(label), break_long_words=False, break_on_hyphens=False)
            indent = label if number == 0 else " " * len(label)
            lines += [(indent if line == 0 else " " * len(label)) + part for line, part in enumerate(wrapped)]
    return lines
