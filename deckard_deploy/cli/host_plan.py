"""The plan for this host: its folders and its memory. Apart from what makes things: `plan` must start quickly."""

import os
import shutil
from pathlib import Path, PurePosixPath

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli.patch_choice import patched
from deckard_deploy.cli.pinned import pinned
from deckard_deploy.cli.plan_memory import kv_bytes_of, on_this_host, planned_memory, with_measured_memory
from deckard_deploy.cli.plan_reality import earlier_starts
from deckard_deploy.errors import IntegrityError
from deckard_deploy.planning.memory.fit import Memory, with_serve
from deckard_deploy.planning.memory.parts import EarlierStart, Known
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import HostPaths, build_plan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Releases
from deckard_deploy.weights.checkpoint import read_checkpoint

MEMINFO = Path("/proc/meminfo")


def plan_for(resolved: Resolved, directory: StateDir) -> LaunchPlan:
    """The plan with this host's folders in it; nothing is made."""
    root = PurePosixPath(directory.root)
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")  # where Debian has it
    paths = HostPaths(
        models=root / "models",
        caches=root / "cache",
        patches=root / "patches",
        deployments=root / "deployments",
        owner=f"{os.getuid()}:{os.getgid()}",
        nginx=PurePosixPath(nginx) if nginx else None,
    )
    return pinned(patched(build_plan(resolved, paths), resolved, paths.patches))


def measured_plan(
    resolved: Resolved, directory: StateDir, *, meminfo: Path = MEMINFO
) -> tuple[Resolved, LaunchPlan, Memory | str]:
    """The choice with this host's memory in it, its plan, and what that takes (or why that is not known).

    On a unified machine the KV cache's size becomes an option; a plan that is the current release stays what it is.
    """
    current = current_plan(directory, resolved.name)
    known = Known(
        weight_bytes=_tensor_bytes(resolved, directory), starts=_earlier_starts(resolved, directory)
    )
    kept = kv_bytes_of(current) if current else None
    if current and kept and "kv-cache-memory-bytes" not in resolved.serve:
        here, _ = on_this_host(resolved, meminfo=meminfo)
        same = with_serve(here, kv_cache_memory_bytes=kept)
        plan = plan_for(same, directory)
        if plan.hash == current.hash:
            return same, plan, planned_memory(same, available=None, known=known)
    resolved, available = with_measured_memory(resolved, current, meminfo=meminfo, known=known)
    memory = planned_memory(resolved, available=available, known=known)
    return resolved, plan_for(resolved, directory), memory


def _tensor_bytes(resolved: Resolved, directory: StateDir) -> dict[str, dict[str, int]]:
    """What the tensors of models take that are whole on this host, by component, from their files' headers.

    A folder that is not whole yet, or is no checkpoint, is left to `pull` and `verify`; the catalog has its size.
    """
    sizes = {}
    for model in (resolved.model, resolved.drafter):
        if model and (folder := directory.models / model.name).is_dir():
            try:
                sizes[model.name] = read_checkpoint(folder).component_bytes()
            except IntegrityError:
                continue
    return sizes


def _earlier_starts(resolved: Resolved, directory: StateDir) -> tuple[EarlierStart, ...]:
    if not directory.startups.exists():
        return ()

    return earlier_starts(resolved, directory.startups)


def current_plan(directory: StateDir, name: str) -> LaunchPlan | None:
    """The plan of the deployment's current release."""
    deployment = directory.deployment(name)
    if not deployment.folder.exists():
        return None

    release = Releases(deployment).current()
    return release.plan() if release else None
