"""Rules about the machine and its GPUs."""

from collections import Counter

from deckard_deploy.catalog import library
from deckard_deploy.doctor.facts import Gpu, GpuProcess, HostFacts
from deckard_deploy.doctor.findings import RuleVerdict, fail, fail_if_needed, info, ok, rule, warn
from deckard_deploy.doctor.rules.driver_failures import LOST, driver_failure
from deckard_deploy.doctor.target import Target
from deckard_deploy.system.versions import version_numbers

OLDEST_DRIVER = 580  # CUDA 13.0
DEADLOCKING_DRIVER = 590
# Compute capabilities
SPARK = "12.1"  # GB10
THOR = "11.0"
HOT_C = 85
BUSY_PERCENT, SLOW_MHZ = 90, 1400
MUCH_MIB = 1024
MEMORY_SHARE = 0.9
_DOCKER_NAMES = {"aarch64": "arm64", "arm64": "arm64", "x86_64": "amd64", "amd64": "amd64"}
_ENGINE_NAME = "VLLM::"  # in the names of vLLM's processes: VLLM::EngineCore …
_BOARD_NAMES = {"JMJWOA"}  # the name of early GB10 kits (NVIDIA/NemoClaw issue 3886)


def docker_name(architecture: str | None) -> str | None:
    """Return the architecture of `uname -m` as docker images name it; None for an unknown one."""
    return _DOCKER_NAMES.get(architecture or "")


@rule(
    "architecture",
    when="fail: not the profile's",
    why="images and kernels of another architecture do not run",
    source="uname -m; the profile's architecture",
    stops_up=True,
)
def architecture(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The host has the profile's architecture."""
    if facts.architecture is None:
        return None
    if target.architecture in (None, docker_name(facts.architecture)):
        return ok(facts.architecture)
    return fail(
        f"{facts.architecture}, and {target.profile} is for {target.architecture}",
        "choose a profile of this machine: deckard-deploy profiles",
    )


def plan_gpus(facts: HostFacts, target: Target) -> tuple[Gpu, ...]:
    """Return the GPUs that the plan uses: those of CUDA_VISIBLE_DEVICES, else the first ones.

    A live query has asked for UUIDs already; saved facts have no UUIDs.
    """
    chosen = facts.gpus
    if target.gpu_ids and all(each.isdecimal() for each in target.gpu_ids):
        by_index = {gpu.index: gpu for gpu in facts.gpus}
        chosen = tuple(by_index[int(each)] for each in target.gpu_ids if int(each) in by_index)
    return chosen[: target.gpu_count] if target.needs_gpu else chosen


@rule(
    "gpu",
    when="fail: nvidia-smi fails, or shows fewer GPUs than the plan reserves (warn: no profile was named, or other "
    "GPUs are there); "
    "info: no profile was named, and the machine has no NVIDIA GPU",
    why="without the driver's own view of a GPU no container gets one",
    source="nvidia-smi --query-gpu; docs.nvidia.com/deploy/nvml-api, nvmlReturn_t; "
    "tinygrad/open-gpu-kernel-modules issue 47; NVIDIA/NemoClaw issue 8794 (WSL)",
    stops_up=True,
)
def gpu(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The host has as many GPUs as the plan reserves."""
    if target.needs_gpu is False or (not facts.gpus and facts.gpu_problem is None):
        return None
    if not facts.gpus:
        return _judge_no_gpu(facts, target)
    found = plan_gpus(facts, target)
    if target.needs_gpu and len(found) < target.gpu_count:
        fix = "lower --set tensor-parallel-size=N or pipeline-parallel-size=N"
        if target.gpu_ids:
            fix = "others with --set environment.CUDA_VISIBLE_DEVICES=N,…: nvidia-smi -L"
        if facts.gpu_problem:
            fix = f"{facts.gpu_problem}: {driver_failure(facts).fix}"
        return fail(f"{len(found)} GPU here, {target.gpu_count} are reserved", fix)
    names = Counter(each.name for each in facts.gpus)
    what = ", ".join(f"{count} x {name}" for name, count in names.items())
    if facts.gpu_problem:
        failure = driver_failure(facts)
        return warn(f"{what}; {facts.gpu_problem}", failure.fix)
    return ok(what)


def _judge_no_gpu(facts: HostFacts, target: Target) -> RuleVerdict:
    failure = driver_failure(facts)
    what = facts.gpu_problem or "no GPU"
    if failure.cause:
        what = f"{what}: {failure.cause}"
    if facts.nvidia_devices == 0 and target.needs_gpu is None:
        return info(what, failure.fix)
    return fail_if_needed(target.needs_gpu, what, failure.fix)


@rule(
    "gpu-state",
    when="fail: the driver prints an error or a recommended action in place of a GPU's values, "
    "or its compute mode is Prohibited (warn: no profile was named)",
    why="CUDA then fails at the first allocation, or the GPU returns wrong values",
    source="nvidia-smi --help-query-gpu of 580.159.04 (gpu_recovery_action, compute_mode); nvmlReturn_t 15 and 16",
    stops_up=True,
)
def gpu_state(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """No GPU of the plan waits for a reset."""
    if not facts.gpus or target.needs_gpu is False:
        return None
    for each in plan_gpus(facts, target):
        if each.problem:
            return fail_if_needed(target.needs_gpu, f"GPU {each.index}: {each.problem}", _state_fix(each))
        if each.compute_mode == "Prohibited":
            return fail_if_needed(
                target.needs_gpu,
                f"GPU {each.index}: compute mode Prohibited",
                f"sudo nvidia-smi -i {each.index} -c DEFAULT",
            )
    return ok("no error")


def _state_fix(gpu: Gpu) -> str:
    problem = (gpu.problem or "").lower()
    if "lost" in problem or "reboot" in problem or "unknown error" in problem:
        return LOST
    if "permission" in problem:
        return "ls -l /dev/nvidia*; sudo usermod -aG video,render $USER, then log in again"
    return f"sudo nvidia-smi --gpu-reset -i {gpu.index} (ends what runs on it), or reboot"


@rule(
    "mig",
    when="fail: MIG is enabled on a GPU of the plan (warn: no profile was named)",
    why="a container then gets no GPU or a slice of it, with a part of the memory that the profile counts with",
    source="docs.nvidia.com/datacenter/tesla/mig-user-guide; NVIDIA-AI-Blueprints/video-search-and-summarization "
    "issue 25",
    stops_up=True,
)
def mig(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The GPUs of the plan are not divided."""
    if not facts.gpus or target.needs_gpu is False or any(each.startswith("MIG-") for each in target.gpu_ids):
        return None
    for each in plan_gpus(facts, target):
        if each.mig == "Enabled":
            slices = ", ".join(each.mig_devices) or "no slice yet"
            whole = [other.index for other in facts.gpus if other.mig != "Enabled"]
            fix = f"nvidia-smi -L; whole again: sudo nvidia-smi -i {each.index} -mig 0 (ends what runs on its slices)"
            if whole:
                fix += f"; or another GPU: --set environment.CUDA_VISIBLE_DEVICES={whole[0]}"
            return fail_if_needed(target.needs_gpu, f"MIG is on for GPU {each.index}: {slices}", fix)
    return ok("off")


@rule(
    "fabric",
    when="fail: a GPU is not registered with the NVLink fabric (warn: no profile was named)",
    why="CUDA then ends with error 802, system not yet initialized, even for one GPU",
    source="docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide; nvidia-smi --help-query-gpu, fabric.state",
    stops_up=True,
)
def fabric(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The GPUs of a machine with NVSwitches are registered with the fabric. Others have no state."""
    if target.needs_gpu is False:
        return None
    states = [each for each in facts.gpus if each.fabric is not None]
    for each in states:
        if each.fabric != "Completed":
            return fail_if_needed(
                target.needs_gpu,
                f"GPU {each.index}: {each.fabric}",
                "sudo systemctl start nvidia-fabricmanager, in exactly the driver's version; "
                "sudo journalctl -u nvidia-fabricmanager",
            )
    return ok("registered") if states else None


@rule(
    "gpu-model",
    when="fail: another compute capability than the profile's; warn: another name, or less than "
    f"{MEMORY_SHARE:.0%} of its memory",
    why="FP4 kernels are built for one compute capability; settings are measured on one GPU",
    source="developer.nvidia.com/cuda-gpus; NVIDIA/NemoClaw issue 3886 (a GB10 named JMJWOA)",
    stops_up=True,
)
def gpu_model(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The GPUs of the plan are the profile's."""
    if not facts.gpus or not target.gpu:
        return None
    for each in plan_gpus(facts, target):
        verdict = _judge_model(each, target)
        if verdict.fix:
            others = other_gpus(facts, target)
            if others:
                number = ",".join(map(str, others))
                return verdict._replace(fix=f"--set environment.CUDA_VISIBLE_DEVICES={number}: nvidia-smi -L")
            return verdict
    first = (plan_gpus(facts, target) or facts.gpus)[0]
    return _judge_model(first, target)


def other_gpus(facts: HostFacts, target: Target) -> tuple[int, ...]:
    """Return the numbers of GPUs that are the profile's, as many as the plan reserves; empty if they are too few."""
    found = tuple(each.index for each in facts.gpus if not _judge_model(each, target).fix)
    return found[: target.gpu_count] if len(found) >= target.gpu_count else ()


def _judge_model(gpu: Gpu, target: Target) -> RuleVerdict:
    found = f"{gpu.name}, compute capability {gpu.compute_capability or 'unknown'}"
    fix = "choose the profile of this GPU: deckard-deploy profiles"
    expected = target.gpu or ""
    if gpu.compute_capability and gpu.compute_capability != target.compute_capability:
        return fail(f"{found}; {target.profile} is for {expected}, {target.compute_capability}", fix)
    named = expected.removeprefix("NVIDIA ").lower() in gpu.name.lower()
    if not named and not (gpu.name in _BOARD_NAMES and target.compute_capability == SPARK):
        return warn(f"{found}; {target.profile} expects the name {expected}", fix)
    size_gib = (gpu.memory_total_mib or 0) / 1024
    profile_gib = target.memory_gib or 0.0
    # The name contains the profile's, but the memory is smaller: "NVIDIA GeForce RTX 5090 Laptop GPU" has 24
    # GB.
    if target.memory == "discrete" and 0 < size_gib < MEMORY_SHARE * profile_gib:
        return warn(f"{found}; {target.profile} is for {profile_gib:g} GiB, this one has {size_gib:.1f}", fix)
    return ok(found)


@rule(
    "driver",
    when=f"fail: below {OLDEST_DRIVER} (warn: the image here has CUDA 12, or no profile was named); "
    f"on a GB10 warn: {DEADLOCKING_DRIVER}.x, info: newer",
    why="CUDA 13 images need 580; 590 deadlocks in CUDA graphs on a GB10, "
    "580 is what Sparks are known to run on",
    source="docs.nvidia.com/cuda, release notes of 13.0; github eugr/spark-vllm-docker README, 2026-03-12",
    stops_up=True,
)
def driver(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The driver is new enough, and not one that hangs."""
    if not facts.gpus or target.needs_gpu is False:
        return None
    first = (plan_gpus(facts, target) or facts.gpus)[0]
    numbers = version_numbers(first.driver)
    if not numbers:
        return None
    major = numbers[0]
    if major < OLDEST_DRIVER:
        cuda_12 = facts.image is not None and version_numbers(facts.image.cuda)[:1] == (12,)
        return fail_if_needed(
            bool(target.needs_gpu) and not cuda_12,
            f"{first.driver} is older than {OLDEST_DRIVER}",
            f"install driver {OLDEST_DRIVER}, then reboot",
        )
    if first.compute_capability == SPARK and major == DEADLOCKING_DRIVER:
        return warn(
            f"{first.driver}: CUDA graphs deadlock on a GB10", f"go back to a driver {OLDEST_DRIVER}.x"
        )
    if first.compute_capability == SPARK and major > DEADLOCKING_DRIVER:
        return info(
            f"{first.driver}: newer than what most Sparks run; 610 has been seen working",
            f"nothing while it works; if the engine hangs: a driver {OLDEST_DRIVER}.x",
        )
    return ok(str(first.driver))


@rule(
    "cuda",
    when="warn: the image's CUDA is newer than the driver's",
    why="kernels compiled at run time then end in cudaErrorUnsupportedPtxVersion",
    source="vllm-project/vllm issue 31700; github Blackwellboy/model-serving-minefield, trap 08",
)
def cuda(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The driver supports the image's CUDA."""
    image = facts.image
    if (
        image is None
        or image.reference != target.image
        or not version_numbers(image.cuda)
        or not version_numbers(facts.cuda)
    ):
        return None
    if version_numbers(image.cuda)[:2] > version_numbers(facts.cuda)[:2]:
        newer = f"the image has CUDA {image.cuda}, the driver {facts.cuda}"
        return warn(newer, "update the NVIDIA driver, or choose an engine with an older CUDA")
    return ok(f"image {image.cuda}, driver {facts.cuda}")


@rule(
    "gpu-memory-reading",
    when="warn: nvidia-smi tells no memory on a discrete GPU; [N/A] is normal on unified memory",
    why="on a GB10 the driver cannot tell; MemAvailable is what counts there",
    source="docs.nvidia.com/dgx/dgx-spark, known issues; leptonai/gpud pull request 1170",
)
def gpu_memory_reading(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The driver reports the GPU memory, or the memory is unified."""
    if not facts.gpus or target.needs_gpu is False:
        return None
    unknown = [each for each in facts.gpus if each.memory_total_mib is None]
    if not unknown:
        return ok(f"{facts.gpus[0].memory_total_mib} MiB")
    if target.unified or {each.compute_capability for each in unknown} <= {SPARK, THOR}:
        return ok("[N/A], as on every machine with unified memory: /proc/meminfo is used")
    return warn(f"GPU {unknown[0].index} tells no memory", "nvidia-smi -q -d MEMORY")


@rule(
    "gpu-processes",
    when="unified memory: fail: a vLLM engine of no deployment that is known to run; else warn: an engine, or more "
    f"than {MUCH_MIB} MiB",
    why="an engine whose server was killed lives on and keeps its memory; ps shows it as VLLM::EngineCor",
    source="vllm-project/vllm issue 55510; github Blackwellboy/model-serving-minefield, trap 123",
    stops_up=True,
)
def gpu_processes(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """No other process uses much memory of the GPU."""
    if not facts.gpus or target.needs_gpu is False:
        return None
    large = []
    engines = 0
    for process in facts.gpu_processes:
        if _ENGINE_NAME in process.name:
            engines += 1
            large.append(process)
        elif (process.memory_mib or 0) > MUCH_MIB:
            large.append(process)
    if not large:
        return ok("nobody else computes")
    names = ", ".join(map(_process_text, large[:3]))
    if target.running:
        return ok(f"this deployment's: {names}")
    fix = f"a deployment of this tool: deckard-deploy down; what nobody needs, and then ends: kill {large[0].pid}"
    unknown = engines > target.engines_beside
    return fail_if_needed(unknown and target.unified, f"{len(large)} on the GPU: {names}", fix)


def _process_text(process: GpuProcess) -> str:
    memory = "memory unknown"
    if process.memory_mib is not None:
        memory = f"{process.memory_mib} MiB"
    return f"{process.name} (pid {process.pid}, {memory})"


@rule(
    "gpu-heat",
    when=f"warn: {HOT_C} °C or more",
    why="hot Sparks have switched off without a word",
    source="github eugr/spark-vllm-docker README; "
    "NVIDIA/open-gpu-kernel-modules issue 1358 (91 to 65 °C at 2100 MHz)",
)
def gpu_heat(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The GPU is not too hot."""
    known = [each.temperature_c for each in facts.gpus if each.temperature_c is not None]
    if not known:
        return None
    if max(known) >= HOT_C:
        return warn(
            f"{max(known)} °C",
            "give it air, or limit the clock, which makes it slower: sudo nvidia-smi -lgc 200,2150",
        )
    return ok(f"{max(known)} °C")


@rule(
    "gpu-clock",
    when=f"GB10 with a utilization of {BUSY_PERCENT} % or more: warn: a clock below {SLOW_MHZ} MHz, or less power than "
    "the profile's wedged_below_w",
    why="a GB10 can be stuck in a low-power state, at half speed (799 MHz, 19.5 W at 96 %), or in a kernel that never "
    "ends (16 to 27 W at 95 %; about 45 W when it works)",
    source="github Blackwellboy/model-serving-minefield, trap 124; eugr/spark-vllm-docker issue 260; "
    "djangodevreng.nl (2515 MHz, 45 W under load)",
)
def gpu_clock(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """A busy GPU has its full clock and power. An idle one is not judged."""
    busy = [each for each in facts.gpus if _is_busy_spark(each)]
    if not busy:
        return None
    first = busy[0]
    found = f"{first.sm_clock_mhz} MHz, {first.power_w} W at {first.utilization_percent} %"
    slow_w = library.wedged_below_w(first.name) or 0.0
    if (first.sm_clock_mhz or 0) < SLOW_MHZ or (first.power_w or 0.0) < slow_w:
        return warn(
            f"{found}: wedged in a kernel, or stuck in a low-power state",
            "deckard-deploy down, then up; if it stays so: shut the machine down, unplug its power supply for a minute",
        )
    return ok(found)


def _is_busy_spark(gpu: Gpu) -> bool:
    if gpu.compute_capability != SPARK or gpu.sm_clock_mhz is None or gpu.power_w is None:
        return False
    return (gpu.utilization_percent or 0) >= BUSY_PERCENT
