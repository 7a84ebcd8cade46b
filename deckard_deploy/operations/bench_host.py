"""The facts of the measured machine.

The module stands alone, so that a Python without this tool's other dependencies can use it.
"""

import json
import os
from pathlib import Path
from typing import Any

from deckard_deploy.doctor import collect, programs
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.target import Folders, Target


def without_home(text: str) -> str:
    """Return the text with ~ for the user's home, whose path names the user."""
    return text.replace(f"{Path.home()}/", "~/")


def host_facts() -> dict[str, Any]:
    """Return machine, memory and GPUs of this host, as `doctor` reads them. The host's name is not in it."""
    host = Host(environment=dict(os.environ))
    target = Target(folders=Folders(weights=Path("/"), caches=()))
    values = collect.machine(host, target) | collect.memory(host, target) | programs.gpus(host, target)
    facts: dict[str, Any] = json.loads(HostFacts(**values).model_dump_json(exclude_defaults=True))
    return {**facts, "cpus": os.cpu_count()}
