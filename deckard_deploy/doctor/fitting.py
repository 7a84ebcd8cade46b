"""The profiles that a machine can run, and the one that matches it. Pure: facts in, verdicts out.

Disk, port and image are left to `doctor --profile NAME` and to `up`: they depend on more than the profile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import Deployment, HardwareProfile
from deckard_deploy.doctor.facts import Gpu, HostFacts
from deckard_deploy.doctor.findings import Finding, Severity
from deckard_deploy.doctor.host import not_installed_text
from deckard_deploy.doctor.judge import evaluate_rules
from deckard_deploy.doctor.rules.driver_failures import driver_failure
from deckard_deploy.doctor.rules.gpu import other_gpus, plan_gpus
from deckard_deploy.doctor.target import Target, target_for_plan
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.planning.memory.changes import smallest_changes
from deckard_deploy.planning.memory.fit import MemoryPlan, memory_of
from deckard_deploy.planning.memory.settings import UnknownMemoryError
from deckard_deploy.planning.planner import build_plan

# Only another machine or another profile mends a fail of these rules.
HARDWARE_RULES = ("architecture", "gpu", "gpu-model")
# The user can mend a fail of these.
STATE_RULES = (
    "gpu-state",
    "mig",
    "fabric",
    "driver",
    "memory-available",
    "gpu-processes",
    "footprint",
    "docker",
    "compose",
    "gpu-runtime",
)
VISIBLE = "--set environment.CUDA_VISIBLE_DEVICES"
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One profile on one machine.

    changes: all steps that are needed before the profile runs, as lines of text. made_for_it: the profile
    names this machine's GPU, or the machine has no GPU and the profile needs none.
    """

    profile: str
    verdict: Literal["runs", "with changes", "no"]
    why: str
    changes: tuple[str, ...] = ()
    made_for_it: bool = False


def fit(profile: HardwareProfile, facts: HostFacts) -> Fit:
    """Judge the profile with its own model, engine and settings on the machine of `facts`."""
    resolved = resolve(Deployment(), profile=profile)
    target = target_for_plan(resolved, build_plan(resolved), models=Path())
    findings = {finding.rule: finding for finding in evaluate_rules(facts, target)}
    chosen = _chosen_gpus(facts, target, findings)
    if chosen:
        target = replace(target, gpu_ids=tuple(map(str, chosen)))
        findings = {finding.rule: finding for finding in evaluate_rules(facts, target)}
    for rule in HARDWARE_RULES:
        if _failed(findings.get(rule)):
            return Fit(profile=profile.name, verdict="no", why=findings[rule].what)
    model = findings.get("gpu-model")
    named = model is not None and model.severity is Severity.OK
    if not named:
        resolved = _with_memory_of(resolved, plan_gpus(facts, target))
    memory = _memory(resolved)
    smaller = _smaller_settings(resolved, memory, gpus=len(facts.gpus))
    if memory and memory.verdict == "no" and not smaller:
        return Fit(profile=profile.name, verdict="no", why=memory.problem())
    changes = (*_state_changes(findings), *smaller)
    if chosen:
        changes = (f"{VISIBLE}={','.join(map(str, chosen))}", *changes)
    return Fit(
        profile=profile.name,
        verdict="with changes" if changes else "runs",
        why=model.what if model else "needs no GPU",
        changes=changes,
        made_for_it=named or (profile.hardware.gpu_count == 0 and not facts.gpus),
    )


def _state_changes(findings: Mapping[str, Finding]) -> list[str]:
    changes = []
    for rule in STATE_RULES:
        finding = findings.get(rule)
        if finding is not None and _failed(finding):
            changes.append(f"{finding.what}: {finding.fix}")
    return changes


def matching_profile(facts: HostFacts, fits: Sequence[Fit]) -> Fit:
    """Return the profile that `up` takes when none is named. Raises EnvironmentUnfitError if unclear."""
    absent = facts.gpu_problem in (None, not_installed_text("nvidia-smi"))
    if not facts.gpus and (not absent or facts.nvidia_devices):
        failure = driver_failure(facts)
        raise EnvironmentUnfitError(
            f"no profile was named, and the GPU cannot be seen: {facts.gpu_problem}",
            hint=f"{failure.fix}; or name one: deckard-deploy up --profile NAME",
        )
    matching = [each for each in fits if each.made_for_it and each.verdict != "no"]
    # A GPU with another number than 0 is not taken without a word.
    matching = [each for each in matching if not _other_gpus(each)] or matching
    if len(matching) == 1 and not _other_gpus(matching[0]):
        return matching[0]
    machine = f"{facts.architecture}, no GPU"
    if facts.gpus:
        machine = f"{facts.gpus[0].name}, {facts.architecture}"
    if matching and _other_gpus(matching[0]):
        raise EnvironmentUnfitError(
            f"{machine} is GPU 0, and the GPU of a profile has another number",
            hint=" or ".join(
                f"deckard-deploy up --profile {each.profile} {each.changes[0]}" for each in matching
            ),
        )
    if matching:
        raise EnvironmentUnfitError(
            f"several profiles are made for {machine}",
            hint=f"deckard-deploy up {_profile_options(matching)}",
        )
    raise _no_match(machine, fits)


def _other_gpus(fit: Fit) -> bool:
    """Return True if the profile needs other GPUs than the first ones."""
    return bool(fit.changes) and fit.changes[0].startswith(VISIBLE)


def _no_match(machine: str, fits: Sequence[Fit]) -> EnvironmentUnfitError:
    similar = [each for each in fits if each.verdict != "no" and each.why != "needs no GPU"]
    problem = f"no profile is made for {machine}"
    options = "--profile cpu (a rehearsal)"
    if similar:
        problem += f"; the same kind of GPU has: {', '.join(each.profile for each in similar)}"
        options = _profile_options(similar)
    return EnvironmentUnfitError(problem, hint=f"deckard-deploy profiles, then: deckard-deploy up {options}")


def _profile_options(fits: Sequence[Fit]) -> str:
    return " or ".join(f"--profile {each.profile}" for each in fits)


def _failed(finding: Finding | None) -> bool:
    return finding is not None and finding.severity is Severity.FAIL


def _chosen_gpus(facts: HostFacts, target: Target, findings: Mapping[str, Finding]) -> tuple[int, ...]:
    """Return the numbers of the GPUs that are the profile's if the first ones are not, as next to a display card."""
    model = findings.get("gpu-model")
    if model is None or model.severity is Severity.OK:
        return ()
    return other_gpus(facts, target)


def _with_memory_of(resolved: Resolved, gpus: Sequence[Gpu]) -> Resolved:
    """Return the same choice on a GPU of another name, with the memory that the driver reports."""
    hardware = resolved.profile.hardware
    if not gpus or hardware.memory != "discrete":
        return resolved
    size_mib = gpus[0].memory_total_mib
    if size_mib is None:
        return resolved
    measured = hardware.model_copy(update={"memory_gib": size_mib * MIB / 2**30})
    return replace(resolved, profile=resolved.profile.model_copy(update={"hardware": measured}))


def _memory(resolved: Resolved) -> MemoryPlan | None:
    """Return the memory of the plan, None if unknown. The rules judge free memory, because it changes."""
    try:
        return memory_of(resolved)
    except UnknownMemoryError:
        return None


def _smaller_settings(resolved: Resolved, memory: MemoryPlan | None, *, gpus: int) -> list[str]:
    """Return the changes of settings that fit into memory, and need no more GPUs than there are."""
    if memory is None or memory.verdict == "fits":
        return []
    options = []
    for change in smallest_changes(resolved, memory):
        if change.memory.settings.tensor_parallel <= gpus:
            options.append(" ".join(change.options))
    if not options:
        return []
    return [f"{memory.problem()}: {' or '.join(options)}"]
