"""The memory of this machine, if it is the machine of a profile."""

from dataclasses import replace
from pathlib import Path

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.planning.memory.settings import GIB
from deckard_deploy.system.meminfo import total_and_available

# A host is the profile's machine if it has at least this share of its memory, and at most this much more:
# firmware reserves different sizes. Sparks have 121.69 GiB (profiles/spark.yaml) or 119.68 (leptonai/gpud
# pull request 1170).
MIN_SHARE, _MAX_EXCESS = 0.9, 2 * GIB


def on_this_host(resolved: Resolved, *, meminfo: Path) -> tuple[Resolved, int | None]:
    """Return the choice with the memory of this machine, and the free bytes.

    The choice is unchanged and the bytes are None if this is not the profile's unified machine.
    """
    hardware = resolved.profile.hardware
    if hardware.memory != "unified" or not hardware.memory_gib:
        return resolved, None
    total, available = total_and_available(meminfo)
    planned = hardware.memory_gib * GIB
    if not MIN_SHARE * planned <= total <= planned + _MAX_EXCESS:
        return resolved, None
    hardware = hardware.model_copy(update={"memory_gib": total / GIB})
    profile = resolved.profile.model_copy(update={"hardware": hardware})
    return replace(resolved, profile=profile), available
