"""The facts of this machine, read for `doctor`, `profiles here` and `up`."""

import os

from deckard_deploy.doctor.collect import collect
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.target import Target
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.system.ports import require_free


def facts_of_host(target: Target, *, quick: bool = False) -> HostFacts:
    """Read the facts of this machine; `quick`: only those for the rules that stop `up`."""
    return collect(target, Host(environment=dict(os.environ)), port_problem=_port_problem, quick=quick)


def _port_problem(address: str, port: int) -> str | None:
    try:
        require_free(address, port)
    except EnvironmentUnfitError as error:
        return error.message
    return None
