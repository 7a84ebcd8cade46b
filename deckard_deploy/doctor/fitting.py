"""Which profiles this machine can run, and the one that is made for it. Pure: facts in, verdicts out.

Disk, port and image are left to `doctor --profile NAME` and to `up`: they depend on more than the profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import Deployment, HardwareProfile
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.findings import Finding, Severity
from deckard_deploy.doctor.host import not_installed
from deckard_deploy.doctor.judge import judge
from deckard_deploy.doctor.target import target_of
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.planning.memory.changes import smallest_changes
from deckard_deploy.planning.memory.fit import Memory, memory_of
from deckard_deploy.planning.memory.settings import UnknownMemoryError
from deckard_deploy.planning.planner import build_plan

# Rules whose fails only another machine, or another profile, mends; and those whose fails somebody here can.
HARDWARE = ("architecture", "gpu", "gpu-model")
STATE = ("driver", "memory-available", "gpu-processes", "footprint", "docker", "compose", "gpu-runtime")
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One profile on one machine.

    changes: what to do before it runs, all of it; lines of text. made_for_it: it names this machine's GPU, or there is
    none and it needs none.
    """

    profile: str
    verdict: Literal["runs", "with changes", "no"]
    why: str
    changes: tuple[str, ...] = ()
    made_for_it: bool = False


def fit(profile: HardwareProfile, facts: HostFacts) -> Fit:
    """The profile with its own model, engine and settings on the machine of `facts`."""
    resolved = resolve(Deployment(), profile=profile)
    findings = {
        found.rule: found for found in judge(facts, target_of(resolved, build_plan(resolved), models=Path()))
    }
    never = next((name for name in HARDWARE if _failed(findings.get(name))), None)
    if never:
        return Fit(profile=profile.name, verdict="no", why=findings[never].what)
    model = findings.get("gpu-model")
    named = model is not None and model.severity is Severity.OK
    here = resolved if named else _with_memory_of(resolved, facts)
    memory = _memory(here)
    state = tuple(f"{f.what}: {f.fix}" for name in STATE if (f := findings.get(name)) and _failed(f))
    smaller = _smaller(here, memory, gpus=len(facts.gpus))
    if memory and memory.verdict == "no" and not smaller:
        return Fit(profile=profile.name, verdict="no", why=memory.problem())
    changes = (*state, *smaller)
    return Fit(
        profile=profile.name,
        verdict="with changes" if changes else "runs",
        why=model.what if model else "needs no GPU",
        changes=changes,
        made_for_it=named or (profile.hardware.gpu_count == 0 and not facts.gpus),
    )


def made_for(facts: HostFacts, fits: Sequence[Fit]) -> Fit:
    """The profile that `up` takes when none is named. Raises EnvironmentUnfitError when that is not clear."""
    if not facts.gpus and facts.gpu_problem not in (None, not_installed("nvidia-smi")):
        raise EnvironmentUnfitError(
            f"no profile was named, and the GPU cannot be seen: {facts.gpu_problem}",
            hint="mend the NVIDIA driver, or name one: deckard-deploy up --profile NAME",
        )
    made = [each for each in fits if each.made_for_it and each.verdict != "no"]
    if len(made) == 1:
        return made[0]
    machine = f"{facts.gpus[0].name}, {facts.architecture}" if facts.gpus else f"{facts.architecture}, no GPU"
    if made:
        names = " or ".join(f"--profile {each.profile}" for each in made)
        raise EnvironmentUnfitError(
            f"several profiles are made for {machine}", hint=f"deckard-deploy up {names}"
        )
    able = [each.profile for each in fits if each.verdict != "no" and each.why != "needs no GPU"]
    near = " or ".join(f"--profile {name}" for name in able)
    raise EnvironmentUnfitError(
        f"no profile is made for {machine}"
        + (f"; the same kind of GPU has: {', '.join(able)}" if able else ""),
        hint=f"deckard-deploy profiles, then: deckard-deploy up {near or '--profile cpu (a rehearsal)'}",
    )


def _failed(finding: Finding | None) -> bool:
    return finding is not None and finding.severity is Severity.FAIL


def _with_memory_of(resolved: Resolved, facts: HostFacts) -> Resolved:
    """The same choice on a GPU of another name, as large as the driver says."""
    size = facts.gpus[0].memory_total_mib if facts.gpus else None
    if size is None or resolved.profile.hardware.memory != "discrete":
        return resolved
    hardware = resolved.profile.hardware.model_copy(update={"memory_gib": size * MIB / 2**30})
    return replace(resolved, profile=resolved.profile.model_copy(update={"hardware": hardware}))


def _memory(resolved: Resolved) -> Memory | None:
    """What is free just now is left to the rules: it changes."""
    try:
        return memory_of(resolved)
    except UnknownMemoryError:
        return None


def _smaller(resolved: Resolved, memory: Memory | None, *, gpus: int) -> tuple[str, ...]:
    """The changes that make it fit, without those that want more GPUs than there are."""
    if memory is None or memory.verdict == "fits":
        return ()
    found = smallest_changes(resolved, memory)
    options = " or ".join(
        " ".join(each.options) for each in found if each.memory.settings.tensor_parallel <= gpus
    )
    return (f"{memory.problem()}: {options}",) if options else ()
