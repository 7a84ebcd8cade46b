"""Rules about the machine and its GPUs."""

from deckard_deploy.doctor.facts import Gpu, GpuProcess, HostFacts
from deckard_deploy.doctor.findings import RuleVerdict, fail, fail_if_needed, info, ok, rule, version, warn
from deckard_deploy.doctor.target import Target

OLDEST_DRIVER = 580  # CUDA 13.0
DEADLOCKING_DRIVER = 590
# Compute capabilities
SPARK = "12.1"  # GB10
THOR = "11.0"
HOT_C = 85
BUSY_PERCENT, SLOW_MHZ, SLOW_W = 90, 1400, 25.0
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


@rule(
    "gpu",
    when="fail: nvidia-smi shows fewer GPUs than the plan reserves (warn: no profile was named)",
    why="without the driver's own view of a GPU no container gets one",
    source="nvidia-smi --query-gpu",
    stops_up=True,
)
def gpu(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The host has as many GPUs as the plan reserves."""
    if target.needs_gpu is False or (not facts.gpus and facts.gpu_problem is None):
        return None
    fix = "install or load the NVIDIA driver (nvidia-smi); without a GPU: deckard-deploy up --profile cpu"
    if not facts.gpus:
        return fail_if_needed(target.needs_gpu, facts.gpu_problem or "no GPU", fix)
    if target.needs_gpu and len(facts.gpus) < target.gpu_count:
        fix = "lower --set tensor-parallel-size=N or pipeline-parallel-size=N"
        if target.gpu_ids:
            fix = "others with --set environment.CUDA_VISIBLE_DEVICES=N,…: nvidia-smi -L"
        return fail(f"{len(facts.gpus)} GPU here, {target.gpu_count} are reserved", fix)
    return ok(f"{len(facts.gpus)} x {facts.gpus[0].name}")


@rule(
    "gpu-model",
    when="fail: another compute capability than the profile's; warn: another name, or less than "
    f"{MEMORY_SHARE:.0%} of its memory",
    why="FP4 kernels are built for one compute capability; settings are measured on one GPU",
    source="developer.nvidia.com/cuda-gpus; NVIDIA/NemoClaw issue 3886 (a GB10 named JMJWOA)",
    stops_up=True,
)
def gpu_model(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The GPU is the profile's."""
    if not facts.gpus or not target.gpu:
        return None
    first = facts.gpus[0]
    found = f"{first.name}, compute capability {first.compute_capability or 'unknown'}"
    fix = "choose the profile of this GPU: deckard-deploy profiles"
    if first.compute_capability and first.compute_capability != target.compute_capability:
        return fail(f"{found}; {target.profile} is for {target.gpu}, {target.compute_capability}", fix)
    named = target.gpu.removeprefix("NVIDIA ").lower() in first.name.lower()
    if not named and not (first.name in _BOARD_NAMES and target.compute_capability == SPARK):
        return warn(f"{found}; {target.profile} expects the name {target.gpu}", fix)
    size_gib = (first.memory_total_mib or 0) / 1024
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
    first = facts.gpus[0]
    numbers = version(first.driver)
    if not numbers:
        return None
    major = numbers[0]
    if major < OLDEST_DRIVER:
        cuda_12 = facts.image is not None and version(facts.image.cuda)[:1] == (12,)
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
        return info(f"{first.driver}: newer than what most Sparks run; 610 has been seen working")
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
    if image is None or image.reference != target.image or not version(image.cuda) or not version(facts.cuda):
        return None
    if version(image.cuda)[:2] > version(facts.cuda)[:2]:
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
    when=f"unified memory: fail: another vLLM engine; else warn: an engine, or more than {MUCH_MIB} MiB",
    why="an engine whose server was killed lives on and keeps its memory; ps shows it as VLLM::EngineCor",
    source="vllm-project/vllm issue 55510; github Blackwellboy/model-serving-minefield, trap 123",
    stops_up=True,
)
def gpu_processes(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """No other process uses much memory of the GPU."""
    if not facts.gpus or target.needs_gpu is False:
        return None
    large = []
    engine_found = False
    for process in facts.gpu_processes:
        if _ENGINE_NAME in process.name:
            engine_found = True
            large.append(process)
        elif (process.memory_mib or 0) > MUCH_MIB:
            large.append(process)
    if not large:
        return ok("nobody else computes")
    names = ", ".join(map(_process_text, large[:3]))
    if target.running:
        return ok(f"this deployment's: {names}")
    fix = f"if nobody needs it: kill {large[0].pid}; a deployment of this tool: deckard-deploy down"
    return fail_if_needed(engine_found and target.unified, f"{len(large)} on the GPU: {names}", fix)


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
        return warn(f"{max(known)} °C", "give it air, or limit the clock: sudo nvidia-smi -lgc 200,2150")
    return ok(f"{max(known)} °C")


@rule(
    "gpu-clock",
    when=f"GB10 at {BUSY_PERCENT} % or more: warn: below {SLOW_MHZ} MHz or {SLOW_W:g} W",
    why="a GB10 can be stuck in a low-power state, at half speed (799 MHz, 19.5 W at 96 %)",
    source="github Blackwellboy/model-serving-minefield, trap 124; "
    "djangodevreng.nl (2515 MHz, 45 W under load)",
)
def gpu_clock(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """A busy GPU has its full clock and power. An idle one is not judged."""
    busy = [each for each in facts.gpus if _is_busy_spark(each)]
    if not busy:
        return None
    first = busy[0]
    found = f"{first.sm_clock_mhz} MHz, {first.power_w} W at {first.utilization_percent} %"
    if (first.sm_clock_mhz or 0) < SLOW_MHZ or (first.power_w or 0.0) < SLOW_W:
        return warn(found, "stop the server, unplug the power supply for a minute, start again")
    return ok(found)


def _is_busy_spark(gpu: Gpu) -> bool:
    if gpu.compute_capability != SPARK or gpu.sm_clock_mhz is None or gpu.power_w is None:
        return False
    return (gpu.utilization_percent or 0) >= BUSY_PERCENT
