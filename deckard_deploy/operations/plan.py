"""The plan for this host: its folders and its memory. Nothing is started or written, so `plan` is quick."""

import os
import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Generated
from deckard_deploy.errors import DoesNotFitError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.host import quick_host_facts
from deckard_deploy.operations.locked import apply_lock, require_locked
from deckard_deploy.operations.models import folder_of
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.operations.this_machine import on_this_host
from deckard_deploy.planning.difference import difference
from deckard_deploy.planning.memory.beside import (
    SharedChange,
    SharedMachine,
    changes_for_both,
    problem_beside,
    smaller_share,
)
from deckard_deploy.planning.memory.changes import MemoryChange, smallest_changes
from deckard_deploy.planning.memory.fit import NOTHING_KNOWN, MemoryPlan, memory_of, with_serve
from deckard_deploy.planning.memory.parts import EarlierStart, HostMeasurements, Level, readable_bytes
from deckard_deploy.planning.memory.settings import UnknownMemoryError
from deckard_deploy.planning.plan import CdiGpus, LaunchPlan
from deckard_deploy.planning.planner import VISIBLE_GPUS, HostPaths, build_plan, visible_gpus
from deckard_deploy.planning.replicas import as_front, replica_choice, replica_name, shares
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.running.releases import Releases
from deckard_deploy.system import docker_info
from deckard_deploy.system.commands import run
from deckard_deploy.system.meminfo import MEMINFO
from deckard_deploy.system.unknown import Unknown
from deckard_deploy.weights.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from deckard_deploy.measuring.speculation import SpecRecord

DOCKER_TIMEOUT_S = 10.0
_KV_BYTES = "kv-cache-memory-bytes"


class HostPlan(NamedTuple):
    """A choice with this host's memory in it, its plan, and the memory that the plan takes.

    shared: the machine with the other deployments that run on it; None: there is none, or this one runs already.
    """

    resolved: Resolved
    plan: LaunchPlan
    memory: MemoryPlan | Unknown
    shared: SharedMachine | None = None

    @property
    def problem(self) -> str:
        """Return why the plan does not fit next to the other deployments; "" if it may, or if there is none."""
        if self.shared is None or not isinstance(self.memory, Unknown):
            return ""
        return problem_beside(self.resolved, self.shared)


class GroupPlan(NamedTuple):
    """Equal engines on this host, and the plan of their front."""

    resolved: Resolved
    front: LaunchPlan
    replicas: tuple[HostPlan, ...]


class PlanView(NamedTuple):
    """The values that `plan` shows.

    planned: with replicas the first of them. current: the plan of the current release. changes: from it to this plan.
    fitting: changes that would make it fit. drafter: the last record of `bench spec` with this drafter.
    """

    planned: HostPlan
    current: LaunchPlan | None
    changes: list[str]
    fitting: tuple[MemoryChange, ...]
    drafter: "SpecRecord | None"
    group: GroupPlan | None = None


def view_plan(choice: Choice, state_dir: Path | None, report: Reporter, *, locked: bool = False) -> PlanView:
    """Return the plan that `up` would run on this host, and its changes. Nothing is written.

    locked: refuse every part that ./deckard.lock lacks. Raises BadInputError, IntegrityError.
    """
    directory = state_directory(state_dir)
    resolved = resolve_choice(choice, report, directory)
    group = plan_group(resolved, directory) if resolved.replicas is not None else None
    current = current_plan(directory, group.replicas[0].plan.deployment if group else resolved.name)
    planned = group.replicas[0] if group else plan_with_memory(resolved, directory, current)
    if locked:
        require_locked(planned.resolved, planned.plan)
    return PlanView(
        group=group,
        planned=planned,
        current=current,
        changes=changes_to(planned.plan, current),
        fitting=changes_that_fit(planned),
        drafter=measured_drafter(planned.resolved, directory),
    )


def plan_group(resolved: Resolved, directory: StateDir) -> GroupPlan:
    """Return the plans of the replicas on this host, and of their front. Nothing is created.

    A replica that exists keeps its port. Raises BadInputError, EnvironmentUnfitError.
    """
    here = len(quick_host_facts().gpus) if resolved.engine.gpu else 0
    replicas = []
    for share in shares(resolved, here or None):
        current = current_plan(directory, replica_name(resolved.name, share.number))
        port = current.port if current and current.port != resolved.publish.port else None
        one = replica_choice(resolved, share, port=port)
        replicas.append(plan_with_memory(one, directory, current))
    behind = replace(resolved, gateway="nginx", environment={})
    sockets = PurePosixPath(directory.deployment(resolved.name).members)
    front = as_front(plan_for_host(behind, directory, None), sockets)
    return GroupPlan(resolved, front, tuple(replicas))


def plan_for_host(resolved: Resolved, directory: StateDir, current: LaunchPlan | None) -> LaunchPlan:
    """Return the plan with the folders of this host. Nothing is created.

    current: the plan of the current release. Raises EnvironmentUnfitError if its gateway's nginx is gone.
    """
    root = PurePosixPath(directory.root)
    docker = _docker_info(resolved)
    # Debian has nginx in a folder that is not on everyone's PATH.
    installed = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    paths = HostPaths(
        models=root / "models",
        caches=root / "cache",
        patches=root / "patches",
        deployments=root / "deployments",
        owner=f"{os.getuid()}:{os.getgid()}",
        nginx=gateway_program(resolved, current, installed=installed),
        rootless=docker_info.is_rootless(docker),
        sockets=True,
    )
    resolved = replace(resolved, gpu_driver=_gpu_driver(resolved, current, docker))
    return apply_lock(with_needed_patches(build_plan(resolved, paths), resolved, paths.patches))


def _docker_info(resolved: Resolved) -> dict[str, Any]:
    """Return what `docker info` says; nothing for the process runtime, or without an answer."""
    if resolved.engine.runtime != "docker":
        return {}
    try:
        done = run(
            ("docker", "info", "--format", "{{json .}}"),
            environment=os.environ,
            say=lambda _: None,
            timeout_s=DOCKER_TIMEOUT_S,
        )
    except EnvironmentUnfitError:  # `up` says so itself
        return {}
    return docker_info.parse(done.stdout)


def _gpu_driver(
    resolved: Resolved, current: LaunchPlan | None, docker: docker_info.Info
) -> Literal["nvidia", "cdi"] | None:
    """Return the way by which a container gets its GPUs: as set, as this docker has it, or as the current release.

    A release that uses CDI keeps it when an nvidia runtime is installed, so that it is not restarted.
    """
    if resolved.gpu_driver:
        return resolved.gpu_driver
    if current and isinstance(current.gpus, CdiGpus):
        return "cdi"
    return docker_info.gpu_driver(docker)


def gateway_program(
    resolved: Resolved, current: LaunchPlan | None, *, installed: str | None
) -> PurePosixPath | None:
    """Return the nginx of the process runtime; None: not installed, or the current release runs without it.

    Installing or removing nginx on the host changes no deployment: only a setting does. Raises
    EnvironmentUnfitError if the current release's nginx is gone.
    """
    publish = resolved.publish
    requested = resolved.gateway or publish.expose or publish.tls or publish.certificate
    if current and current.runtime == resolved.engine.runtime == "process" and not requested:
        if current.gateway is None:
            return None
        if installed is None:
            raise EnvironmentUnfitError(
                f"nginx is not installed any more, and {resolved.name} has it as its gateway",
                hint="sudo apt-get install nginx-light; or, to let in every program of this machine: "
                "--set gateway=off",
            )
    return PurePosixPath(installed) if installed else None


def plan_with_memory(
    resolved: Resolved, directory: StateDir, current: LaunchPlan | None, *, meminfo: Path = MEMINFO
) -> HostPlan:
    """Return the plan for this host, with the memory it takes. current: the plan of the current release.

    On a unified machine the size of the KV cache becomes an option. A plan that is the current release keeps
    its size.
    """
    resolved, shared, runs = _placed(resolved, directory, current, meminfo)
    free = shared.free if shared and resolved.profile.hardware.gpu_count else None
    known = HostMeasurements(
        weight_bytes=_tensor_bytes(resolved, directory), starts=_earlier_starts(resolved, directory)
    )
    kept = _kv_bytes_of(current) if current else None
    if current and kept and _KV_BYTES not in resolved.serve:
        on_host, _ = on_this_host(resolved, meminfo=meminfo)
        same = with_serve(on_host, kv_cache_memory_bytes=kept)
        plan = plan_for_host(same, directory, current)
        if plan.hash == current.hash:
            left = None if runs else shared
            return HostPlan(same, plan, planned_memory(same, available=left and left.free, known=known), left)
    resolved, available = with_measured_memory(resolved, current, meminfo=meminfo, known=known, free=free)
    plan = plan_for_host(resolved, directory, current)
    if runs and current and plan.hash == current.hash:
        return HostPlan(resolved, plan, planned_memory(resolved, available=None, known=known))
    return HostPlan(resolved, plan, planned_memory(resolved, available=available, known=known), shared)


def _may_run(directory: StateDir, name: str) -> bool:
    """Return False if every launch of the deployment is recorded as ended. Its runtime is not asked."""
    launches = [release.launch_or_none() for release in Releases(directory.deployment(name)).all()]
    return any(launch is not None and launch.state in ("starting", "ready") for launch in launches)


def _placed(
    resolved: Resolved, directory: StateDir, current: LaunchPlan | None, meminfo: Path
) -> tuple[Resolved, SharedMachine | None, bool]:
    """Return the choice with its port and GPUs, the machine as others share it, and whether the deployment runs."""
    others = any(_may_run(directory, name) for name in directory.with_replicas() if name != resolved.name)
    moved = current and (
        current.port != resolved.publish.port
        or (VISIBLE_GPUS not in resolved.environment and visible_gpus(current))
    )
    if not others and not moved:
        return resolved, None, False
    from deckard_deploy.operations import neighbours  # noqa: PLC0415  few machines have several deployments

    if current and moved:
        resolved = neighbours.kept_place(resolved, directory, current)
    if not others:
        return resolved, None, False
    return neighbours.place(resolved, directory, first=current is None, meminfo=meminfo)


def _tensor_bytes(resolved: Resolved, directory: StateDir) -> dict[str, dict[str, int]]:
    """Return the bytes of the tensors by component, for the models that are complete on this host.

    `pull` and `verify` see to a folder that is incomplete or no checkpoint; its size comes from the catalog.
    """
    sizes = {}
    for model in (resolved.model, resolved.drafter):
        if model is None:
            continue
        folder = folder_of(model, directory)
        if not folder.is_dir():
            continue
        try:
            sizes[model.name] = read_checkpoint(folder).component_bytes()
        except IntegrityError:
            continue
    return sizes


def _earlier_starts(resolved: Resolved, directory: StateDir) -> tuple[EarlierStart, ...]:
    if not directory.startups.exists():
        return ()
    from deckard_deploy.operations.measured_memory import earlier_starts  # noqa: PLC0415  none at first

    return earlier_starts(resolved, directory.startups)


def current_plan(directory: StateDir, name: str) -> LaunchPlan | None:
    """Return the plan of the deployment's current release."""
    deployment = directory.deployment(name)
    if not deployment.folder.exists():
        return None
    release = Releases(deployment).current()
    return release.load().plan if release else None


def changes_to(plan: LaunchPlan, current: LaunchPlan | None) -> list[str]:
    """Return the changes from the current plan, one line each; none without a current plan."""
    if current is None:
        return []
    return [str(change) for change in difference(current, plan)]


def changes_that_fit(planned: HostPlan) -> tuple[MemoryChange, ...]:
    """Return the smallest changes that make the plan fit, at most three.

    Return none when it fits or its memory is not known.
    """
    memory = planned.memory
    if isinstance(memory, Unknown) or memory.verdict == "fits":
        return ()
    return smallest_changes(planned.resolved, memory)


def measured_drafter(resolved: Resolved, directory: StateDir) -> "SpecRecord | None":
    """Return the last record of `bench spec` with this drafter on this host. Raises IntegrityError."""
    drafter = resolved.drafter
    folder = directory.bench / "spec"
    if drafter is None or drafter.speculative is None or not folder.is_dir():
        return None
    from deckard_deploy.measuring import records, speculation  # noqa: PLC0415  few have such a record

    names = {
        "profile": resolved.profile.name,
        "model": resolved.model.name,
        "engine": resolved.engine.name,
    }
    drafting = records.Drafting(
        method=drafter.speculative.method,
        model=drafter.name if drafter.weights else None,
        tokens=drafter.speculative.num_speculative_tokens,
    )
    return speculation.latest_record(folder, names, drafting)


def planned_memory(
    resolved: Resolved, *, available: int | None, known: HostMeasurements = NOTHING_KNOWN
) -> MemoryPlan | Unknown:
    """Return the memory that the choice takes (`memory_of`).

    Raises BadInputError for a layout that vLLM refuses.
    """
    try:
        return memory_of(resolved, available=available, known=known)
    except UnknownMemoryError as error:
        return Unknown(str(error))


def with_measured_memory(
    resolved: Resolved,
    current: LaunchPlan | None,
    *,
    meminfo: Path,
    known: HostMeasurements = NOTHING_KNOWN,
    free: int | None = None,
) -> tuple[Resolved, int | None]:
    """Return the choice with the KV cache's size as an option, and the free bytes, on a unified machine.

    free: what other deployments leave, on any machine with a GPU; None: there is none.

    vLLM sizes the KV cache by its profiling, which page cache disturbs on such a machine. A current release
    keeps its size: the memory that is free while it runs does not predict its successor's. Elsewhere nothing
    changes.
    """
    if isinstance(resolved.model.weights, Generated) or resolved.compatibility:
        return resolved, None
    resolved, available = on_this_host(resolved, meminfo=meminfo)
    if available is None:
        return resolved, free
    if free is None and current is None:
        free = available
    if _KV_BYTES in resolved.serve:
        return resolved, free
    memory = planned_memory(resolved, available=free, known=known)
    if isinstance(memory, Unknown) or memory.problem():
        return resolved, free
    size = memory.measured_kv_bytes()
    if size:
        resolved = with_serve(resolved, kv_cache_memory_bytes=size)
    return resolved, free


def _kv_bytes_of(plan: LaunchPlan) -> int | None:
    size = plan.option(_KV_BYTES)
    return int(size) if size else None


def refuse_what_cannot_run(planned: HostPlan) -> None:
    """Raise DoesNotFitError if a model cannot fit even under the most optimistic assumption, or next to the others."""
    resolved, memory = planned.resolved, planned.memory
    _refuse_beside(planned)
    if isinstance(memory, Unknown) or isinstance(resolved.model.weights, Generated):
        return
    if memory.problem(Level.LOW):
        raise does_not_fit(memory, smallest_changes(resolved, memory), planned.shared, resolved)


def does_not_fit(
    memory: MemoryPlan,
    changes: tuple[MemoryChange, ...],
    shared: SharedMachine | None = None,
    resolved: Resolved | None = None,
) -> DoesNotFitError:
    """Return the error, with the changes that would make it fit. shared: with other deployments, and the choice."""
    hints = [" ".join(change.options) for change in changes]
    where = ""
    if shared and resolved:
        where = f" next to {shared.names}"
        hints += _hints_beside(resolved, shared)
    elif not hints and memory.available is not None:
        hints.append("stop what holds the memory; deckard-deploy doctor says what that may be")
    return DoesNotFitError(
        f"it does not fit{where}: {memory.problem()}",
        hint="; or: ".join(hints) or "a GPU with more memory, or a smaller model",
    )


def _refuse_beside(planned: HostPlan) -> None:
    """Raise DoesNotFitError for a plan whose memory is not computed, and that does not fit next to the others."""
    shared, problem = planned.shared, planned.problem
    if shared is None or not problem:
        return
    hints = [*own_share(planned), *_hints_beside(planned.resolved, shared)]
    raise DoesNotFitError(f"it does not fit next to {shared.names}: {problem}", hint="; or: ".join(hints))


def own_share(planned: HostPlan) -> tuple[str, ...]:
    """Return the option with which a plan of unknown memory fits next to the others; none if it cannot."""
    if planned.shared is None or not planned.problem:
        return ()
    option = smaller_share(planned.resolved, planned.shared.usable, planned.shared.total)
    return (f"--set {option}",) if option else ()


def changes_of_both(view: PlanView) -> SharedChange | None:
    """Return changes for this plan and for a running deployment, where this plan does not fit next to it."""
    planned = view.planned
    unfit = planned.problem or (not isinstance(planned.memory, Unknown) and planned.memory.problem())
    if planned.shared is None or not unfit:
        return None
    return changes_for_both(planned.resolved, planned.shared)


def shared_line(planned: HostPlan) -> str:
    """Return a sentence about the other deployments and what they leave; "" if none runs."""
    shared = planned.shared
    if shared is None:
        return ""
    return (
        f"{shared.names} leave {readable_bytes(shared.free)} of {readable_bytes(shared.total)}; port "
        f"{planned.plan.port}"
    )


def _hints_beside(resolved: Resolved, shared: SharedMachine) -> list[str]:
    """Return the changes of both, and the way to stop a neighbour, as typed."""
    hints = []
    both = changes_for_both(resolved, shared)
    if both:
        own = f" and {' '.join(both.options)}" if both.options else ""
        hints.append(
            f"deckard-deploy up --name {both.neighbour} with {' '.join(both.neighbour_options)}, which restarts it{own}"
        )
    return [*hints, f"deckard-deploy down --name {shared.neighbours[0].name}"]


def require_fit(view: PlanView) -> None:
    """Raise DoesNotFitError, with the changes that would make it fit, for a plan that surely does not fit."""
    planned = view.planned
    _refuse_beside(planned)
    if not isinstance(planned.memory, Unknown) and planned.memory.verdict == "no":
        raise does_not_fit(planned.memory, view.fitting, planned.shared, planned.resolved)


def memory_verdict(planned: HostPlan) -> str:
    """Return `MemoryPlan.verdict`: "fits", "doubtful" or "no"; "unknown" when the memory is not known."""
    if isinstance(planned.memory, Unknown):
        return "unknown"
    return planned.memory.verdict
