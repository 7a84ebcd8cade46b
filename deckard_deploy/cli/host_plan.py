"""The plan for this host: its folders and its memory. Apart from what makes things: `plan` must start quickly."""

from pathlib import Path, PurePosixPath

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli.patch_choice import patched
from deckard_deploy.cli.plan_memory import kv_bytes_of, planned_memory, with_measured_memory
from deckard_deploy.planning.memory import Memory, with_serve
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import HostPaths, build_plan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Releases

MEMINFO = Path("/proc/meminfo")


def plan_for(resolved: Resolved, directory: StateDir) -> LaunchPlan:
    """The plan with this host's folders in it; nothing is made."""
    root = PurePosixPath(directory.root)
    paths = HostPaths(models=root / "models", caches=root / "cache", patches=root / "patches")
    return patched(build_plan(resolved, paths), resolved, paths.patches)


def measured_plan(resolved: Resolved, directory: StateDir) -> tuple[Resolved, LaunchPlan, Memory | str]:
    """The choice with this host's memory in it, its plan, and what that takes (or why that is not known).

    On a unified machine the KV cache's size becomes an option; a plan that is the current release stays what it is.
    """
    current = current_plan(directory, resolved.name)
    kept = kv_bytes_of(current) if current else None
    if current and kept and "kv-cache-memory-bytes" not in resolved.serve:
        same = with_serve(resolved, kv_cache_memory_bytes=kept)
        plan = plan_for(same, directory)
        if plan.hash == current.hash:
            return same, plan, planned_memory(same, available=None)
    resolved, available = with_measured_memory(resolved, current, meminfo=MEMINFO)
    return resolved, plan_for(resolved, directory), planned_memory(resolved, available=available)


def current_plan(directory: StateDir, name: str) -> LaunchPlan | None:
    """The plan of the deployment's current release."""
    release = Releases(directory.deployment(name)).current()
    return release.plan() if release else None
