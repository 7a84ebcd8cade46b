"""The facts of this machine, and the profile that fits it."""

import os
from pathlib import Path
from typing import NamedTuple

from deckard_deploy.catalog import library, listing
from deckard_deploy.doctor import facts as fact_files
from deckard_deploy.doctor.collect import collect
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.fitting import Fit, fit, matching_profile
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.target import Folders, Target
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.layout import home_required
from deckard_deploy.system.ports import require_free

_VERDICTS = ("runs", "with changes", "no")


def read_host_facts(target: Target, *, quick: bool = False) -> HostFacts:
    """Read the facts of this machine. quick: only those for the rules that stop `up`."""
    return collect(target, Host(environment=dict(os.environ)), port_problem=_port_problem, quick=quick)


def _port_problem(address: str, port: int) -> str | None:
    try:
        require_free(address, port)
    except EnvironmentUnfitError as error:
        return error.message
    return None


def quick_host_facts() -> HostFacts:
    """Read the facts that decide which profile fits.

    Raises EnvironmentUnfitError for a user without a home.
    """
    with home_required():
        home = Path.home()
    return read_host_facts(Target(folders=Folders(weights=home, caches=())), quick=True)


def fitting_profiles(facts: HostFacts) -> list[Fit]:
    """Return every profile with its verdict: the exact match first, those that cannot run last."""
    fits = [fit(library.profile(name), facts) for name in listing.names("profiles")]
    return sorted(fits, key=lambda each: (not each.made_for_it, _VERDICTS.index(each.verdict), each.profile))


def detect_profile(report: Reporter) -> str:
    """Return the profile of this machine, and report the reason. Raises EnvironmentUnfitError."""
    facts = quick_host_facts()
    chosen = matching_profile(facts, fitting_profiles(facts))
    why = chosen.why if facts.gpus else "no NVIDIA GPU here, so a tiny model to rehearse with"
    report.say(f"profile  {chosen.profile}: {why}; another: --profile NAME")
    return chosen.profile


class EvaluatedProfiles(NamedTuple):
    """Every profile with its verdict for a machine.

    default: the profile that `up` selects on its own; None without one. explanation: the reason, in one line.
    """

    fits: list[Fit]
    default: str | None
    explanation: str


def evaluate_profiles(source: Path | None) -> EvaluatedProfiles:
    """Evaluate every profile for this machine.

    source: a file of facts to use instead. Raises BadInputError.
    """
    facts = fact_files.load(source) if source else quick_host_facts()
    fits = fitting_profiles(facts)
    try:
        default = matching_profile(facts, fits).profile
    except EnvironmentUnfitError as error:
        return EvaluatedProfiles(fits, None, f"{error.message}; try: {error.hint}")
    return EvaluatedProfiles(fits, default, f"`up` and `plan` take {default} when no profile is named.")
