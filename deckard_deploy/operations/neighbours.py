"""The other deployments that run on this machine: what they leave of its memory, its ports and its GPUs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import Deployment, Hardware, HardwareProfile, rank_count
from deckard_deploy.doctor.facts import Gpu
from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.host import quick_host_facts
from deckard_deploy.operations.release import asked_model, read_asked
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.this_machine import MIN_SHARE, on_this_host
from deckard_deploy.planning.memory.beside import Neighbour, SharedMachine, taken_by
from deckard_deploy.planning.memory.settings import GIB
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import VISIBLE_GPUS, visible_gpus
from deckard_deploy.running.deploy import observe
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.releases import Release, ReleaseFolder, Releases
from deckard_deploy.system.meminfo import total_and_available
from deckard_deploy.system.ports import require_free

MIB = 2**20


class Place(NamedTuple):
    """A choice with its port and GPUs. shared: the machine; None: nothing else runs. runs: the deployment itself."""

    resolved: Resolved
    shared: SharedMachine | None
    runs: bool


def kept_place(resolved: Resolved, directory: StateDir, current: LaunchPlan) -> Resolved:
    """Return the choice with the port and the GPUs of the current release, as far as the user has set neither.

    They were chosen next to another deployment, which may not run any more: that is no reason for a restart.
    """
    release = Releases(directory.deployment(resolved.name)).current()
    asked = _asked_deployment(release) if release else None
    if asked is None:
        return resolved
    if not resolved.port_is_set and "port" not in asked.get("publish", {}):
        resolved = replace(resolved, publish=resolved.publish.model_copy(update={"port": current.port}))
    gpus = visible_gpus(current)
    if gpus and VISIBLE_GPUS not in {**resolved.environment, **asked.get("environment", {})}:
        resolved = _with_gpus(resolved, gpus)
    return resolved


def place(resolved: Resolved, directory: StateDir, *, first: bool, meminfo: Path) -> Place:
    """Return the choice with a port and GPUs of its own, and what the others leave. Nothing is written.

    first: the deployment has no current release. Raises EnvironmentUnfitError for a port that the user has set and
    another deployment has.
    """
    neighbours = []
    for name in directory.with_replicas():
        release = _running_release(directory, name) if name != resolved.name else None
        if release and release.plan.role != "front":
            neighbours.append(_neighbour(release))
    runs = not first and _running_release(directory, resolved.name) is not None
    if not neighbours:
        return Place(resolved, None, runs)
    resolved = _with_free_port(resolved, neighbours)
    hardware = resolved.profile.hardware
    gpus: Sequence[Gpu] = ()
    if hardware.gpu_count and hardware.memory == "discrete":
        gpus = quick_host_facts().gpus
        if first:
            resolved = _with_free_gpus(resolved, neighbours, gpus)
    return Place(resolved, _shared(resolved, neighbours, gpus, meminfo, runs=runs), runs)


def _running_release(directory: StateDir, name: str) -> Release | None:
    try:
        with open_deployment(directory, name, SILENT) as context:
            seen = observe(context.runtimes)
            if seen.state not in ("running", "restarting") or not seen.plan_hash:
                return None
            release = context.releases.get(seen.plan_hash)
            return release.load() if release else None
    except (EnvironmentUnfitError, IntegrityError):
        return None  # docker does not answer, or the record is damaged: `status` says so


def _neighbour(release: Release) -> Neighbour:
    plan = release.plan
    resolved = _resolved_again(release)
    hardware = resolved.profile.hardware if resolved else _hardware(plan.profile)
    gpus: tuple[str, ...] = ()
    if hardware is not None and hardware.gpu_count and hardware.memory == "discrete":
        gpus = visible_gpus(plan) or tuple(map(str, range(plan.ranks)))
    taken = taken_by(plan, hardware, _weight_bytes(plan)) if hardware else 0
    return Neighbour(plan.deployment, plan.profile, plan.model, plan.port, gpus, taken, resolved)


def _hardware(profile: str) -> Hardware | None:
    try:
        return library.profile(profile).hardware
    except BadInputError:  # of a file of the user's own
        return None


def _resolved_again(release: Release) -> Resolved | None:
    """Return the recorded choice of a release; None if there is none, or if it is not valid any more."""
    found = read_asked(release)
    if found is None:
        return None
    try:
        asked = json.loads(found.asked)
        if asked.get("compatibility"):
            return None
        profile = library.profile(asked["profile"])
        if asked.get("profile_file"):
            profile = HardwareProfile.model_validate_json(json.dumps(asked["profile_file"]))
        deployment = Deployment.model_validate_json(json.dumps(asked["deployment"]))
        return resolve(deployment, profile=profile, model=asked_model(release))
    except (BadInputError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _asked_deployment(release: ReleaseFolder) -> dict[str, Any] | None:
    found = read_asked(release)
    try:
        asked = json.loads(found.asked)["deployment"] if found else None
    except (ValueError, KeyError, TypeError):
        return None
    return asked if isinstance(asked, dict) else None


def _weight_bytes(plan: LaunchPlan) -> int:
    """Return the bytes of the safetensors files of the plan's model and drafter on this host."""
    folders = {Path(plan.arguments[0])}
    if plan.speculative and plan.speculative.model:
        folders.add(Path(plan.speculative.model))
    if plan.mounts:
        targets = {str(folder) for folder in folders}
        folders = {Path(mount.source) for mount in plan.mounts if mount.target in targets}
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))


def _with_free_port(resolved: Resolved, neighbours: Iterable[Neighbour]) -> Resolved:
    """Return the choice with a port that no neighbour has: its own, or the next one that is free."""
    owners = {each.port: each.name for each in neighbours}
    port = resolved.publish.port
    if port not in owners:
        return resolved
    if resolved.port_is_set:
        raise EnvironmentUnfitError(
            f"port {port} is that of {owners[port]}, which runs",
            hint="--port N, or none: a free one is chosen",
        )
    port += 1
    while port in owners or not _is_free(resolved.publish.expose or resolved.publish.address, port):
        port += 1
    return replace(resolved, publish=resolved.publish.model_copy(update={"port": port}))


def _is_free(address: str, port: int) -> bool:
    try:
        require_free(address, port)
    except EnvironmentUnfitError:
        return False
    return True


def _with_free_gpus(resolved: Resolved, neighbours: Iterable[Neighbour], gpus: Sequence[Gpu]) -> Resolved:
    """Return the choice with GPUs that no neighbour uses, unless the user names some, or too few are left."""
    if VISIBLE_GPUS in resolved.environment:
        return resolved
    count = max(resolved.profile.hardware.gpu_count, rank_count(resolved.serve))
    used = {gpu for each in neighbours for gpu in each.gpus}
    left = [str(gpu.index) for gpu in gpus if str(gpu.index) not in used]
    default = [str(gpu.index) for gpu in gpus[:count]]
    if not used.intersection(default) or len(left) < count:
        return resolved
    return _with_gpus(resolved, tuple(left[:count]))


def _with_gpus(resolved: Resolved, gpus: tuple[str, ...]) -> Resolved:
    return replace(resolved, environment={**resolved.environment, VISIBLE_GPUS: ",".join(gpus)})


def _shared(
    resolved: Resolved, neighbours: list[Neighbour], gpus: Sequence[Gpu], meminfo: Path, *, runs: bool
) -> SharedMachine | None:
    """Return what the neighbours leave for this choice; None for the profile of another machine.

    runs: what this deployment has itself is not free now, and will be.
    """
    hardware = resolved.profile.hardware
    if hardware.memory == "discrete":
        return _shared_gpus(resolved, neighbours, gpus, runs=runs)
    if hardware.memory == "unified" and on_this_host(resolved, meminfo=meminfo)[1] is None:
        return None
    total, available = total_and_available(meminfo)
    free = total - sum(each.taken for each in neighbours)
    return SharedMachine(
        tuple(neighbours),
        total,
        max(0, free if runs else min(free, available)),
        unified=hardware.memory == "unified",
    )


def _shared_gpus(
    resolved: Resolved, neighbours: list[Neighbour], gpus: Sequence[Gpu], *, runs: bool
) -> SharedMachine | None:
    """Return what the neighbours leave of the GPU that has least left."""
    count = max(resolved.profile.hardware.gpu_count, rank_count(resolved.serve))
    chosen = resolved.environment.get(VISIBLE_GPUS)
    ids = set(chosen.split(",") if chosen else map(str, range(count)))
    found = []
    for gpu in gpus:
        total, used = gpu.memory_total_mib, gpu.memory_used_mib
        if str(gpu.index) not in ids or total is None or used is None:
            continue
        if total * MIB < MIN_SHARE * (resolved.profile.hardware.memory_gib or 0) * GIB:
            return None
        beside = tuple(each for each in neighbours if str(gpu.index) in each.gpus)
        taken = sum(each.taken for each in beside)
        free = total * MIB - (taken if runs else max(taken, used * MIB))
        found.append(SharedMachine(beside, total * MIB, max(0, free), unified=False))
    if not found:
        return None
    least = min(found, key=lambda each: each.free)
    return least if least.neighbours else None
