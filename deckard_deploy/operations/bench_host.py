"""The machine that was measured; apart, so that a Python without the rest of what this tool needs can ask for it."""

import json
import os
from pathlib import Path
from typing import Any

from deckard_deploy.doctor import collect, programs
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.target import Folders, Target


def host_facts() -> dict[str, Any]:
    """Machine, memory and GPUs of this host, as `doctor` reads them; no names of host or user."""
    host, target = Host(environment=dict(os.environ)), Target(folders=Folders(weights=Path("/"), caches=()))
    read = {**collect.machine(host, target), **collect.memory(host, target), **programs.gpus(host, target)}
    facts: dict[str, Any] = json.loads(HostFacts(**read).model_dump_json(exclude_defaults=True))
    return {**facts, "cpus": os.cpu_count()}
