"""Rules about the machine and its GPUs."""

from deckard_deploy.doctor.facts import Gpu, HostFacts
from deckard_deploy.doctor.findings import Verdict, fail, fail_if, info, ok, rule, version, warn
from deckard_deploy.doctor.target import Target

OLDEST_DRIVER = 580  # CUDA 13.0
DEADLOCKING_DRIVER = 590
SPARK = "12.1"  # compute capability of the GB10
HOT_C = 85
BUSY_PERCENT, SLOW_MHZ, SLOW_W = 90, 1400, 25.0
MUCH_MIB = 1024
MEMORY_SHARE = 0.9
_DOCKER_NAMES = {"aarch64": "arm64", "arm64": "arm64", "x86_64": "amd64", "amd64": "amd64"}
_BOARD_NAMES = {"JMJWOA"}  # what early GB10 kits call themselves (NVIDIA/NemoClaw issue 3886)


def docker_name(architecture: str | None) -> str | None:
    """`uname -m` as images name it."""
    return _DOCKER_NAMES.get(architecture or "")


@rule(
    "architecture",
    when="fail: not the profile's",
    why="images and kernels of another architecture do not run",
    source="uname -m; the profile's architecture",
    stops_up=True,
)
def architecture(facts: HostFacts, target: Target) -> Verdict | None:
    """Host against profile."""
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
def gpu(facts: HostFacts, target: Target) -> Verdict | None:
    """Is there a GPU, and are there enough?"""
    if target.needs_gpu is False or (not facts.gpus and facts.gpu_problem is None):
        return None
    fix = "install or load the NVIDIA driver (nvidia-smi); without a GPU: deckard-deploy up --profile cpu"
    if not facts.gpus:
        return fail_if(target.needs_gpu, facts.gpu_problem or "no GPU", fix)
    if target.needs_gpu and len(facts.gpus) < target.gpu_count:
        few = f"{len(facts.gpus)} GPU here, {target.gpu_count} are reserved"
        others = "others with --set environment.CUDA_VISIBLE_DEVICES=N,…: nvidia-smi -L"
        return fail(
            few,
            others if target.gpu_ids else "lower --set tensor-parallel-size=N or pipeline-parallel-size=N",
        )
    return ok(f"{len(facts.gpus)} x {facts.gpus[0].name}")


@rule(
    "gpu-model",
    when="fail: another compute capability than the profile's; warn: another name, or less than "
    f"{MEMORY_SHARE:.0%} of its memory",
    why="FP4 kernels are built for one compute capability; settings are measured on one GPU",
    source="developer.nvidia.com/cuda-gpus; NVIDIA/NemoClaw issue 3886 (a GB10 named JMJWOA)",
    stops_up=True,
)
def gpu_model(facts: HostFacts, target: Target) -> Verdict | None:
    """Is it the profile's GPU?"""
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
    size, whole = (first.memory_total_mib or 0) / 1024, target.memory_gib or 0.0
    # "NVIDIA GeForce RTX 5090 Laptop GPU": 24 GB.
    if target.memory == "discrete" and 0 < size < MEMORY_SHARE * whole:
        return warn(f"{found}; {target.profile} is for {whole:g} GiB, this one has {size:.1f}", fix)
    return ok(found)


@rule(
    "driver",
    when=f"fail: below {OLDEST_DRIVER} (warn: the image here has CUDA 12, or no profile was named); on a GB10 "
    f"warn: {DEADLOCKING_DRIVER}.x, info: newer",
    why="CUDA 13 images need 580; 590 deadlocks in CUDA graphs on a GB10, 580 is what Sparks are known to run on",
    source="docs.nvidia.com/cuda, release notes of 13.0; github eugr/spark-vllm-docker README, 2026-03-12",
    stops_up=True,
)
def driver(facts: HostFacts, target: Target) -> Verdict | None:
    """Old, or known to hang?"""
    found = facts.gpus[0] if facts.gpus else None
    major = version(found.driver)[:1] if found else ()
    if found is None or not major or target.needs_gpu is False:
        return None
    if major[0] < OLDEST_DRIVER:
        cuda_12 = facts.image is not None and version(facts.image.cuda)[:1] == (12,)
        return fail_if(
            bool(target.needs_gpu) and not cuda_12,
            f"{found.driver} is older than {OLDEST_DRIVER}",
            f"install driver {OLDEST_DRIVER}, then reboot",
        )
    if found.compute_capability == SPARK and major[0] == DEADLOCKING_DRIVER:
        return warn(
            f"{found.driver}: CUDA graphs deadlock on a GB10", f"go back to a driver {OLDEST_DRIVER}.x"
        )
    if found.compute_capability == SPARK and major[0] > DEADLOCKING_DRIVER:
        return info(f"{found.driver}: newer than what most Sparks run; 610 has been seen working")
    return ok(str(found.driver))


@rule(
    "cuda",
    when="warn: the image's CUDA is newer than the driver's",
    why="kernels compiled at run time then end in cudaErrorUnsupportedPtxVersion",
    source="vllm-project/vllm issue 31700; github Blackwellboy/model-serving-minefield, trap 08",
)
def cuda(facts: HostFacts, target: Target) -> Verdict | None:
    """Image against driver."""
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
def gpu_memory_reading(facts: HostFacts, target: Target) -> Verdict | None:
    """Can GPU memory be judged?"""
    if not facts.gpus or target.needs_gpu is False:
        return None
    silent = [each for each in facts.gpus if each.memory_total_mib is None]
    if not silent:
        return ok(f"{facts.gpus[0].memory_total_mib} MiB")
    if target.unified or all(each.compute_capability in (SPARK, "11.0") for each in silent):
        return ok("[N/A], as on every machine with unified memory: /proc/meminfo is used")
    return warn(f"GPU {silent[0].index} tells no memory", "nvidia-smi -q -d MEMORY")


@rule(
    "gpu-processes",
    when=f"unified memory: fail: another vLLM engine; else warn: an engine, or more than {MUCH_MIB} MiB",
    why="an engine whose server was killed lives on and keeps its memory; ps shows it as VLLM::EngineCor",
    source="vllm-project/vllm issue 55510; github Blackwellboy/model-serving-minefield, trap 123",
    stops_up=True,
)
def gpu_processes(facts: HostFacts, target: Target) -> Verdict | None:
    """Who else is there?"""
    if not facts.gpus or target.needs_gpu is False:
        return None
    large = [
        each for each in facts.gpu_processes if "VLLM::" in each.name or (each.memory_mib or 0) > MUCH_MIB
    ]
    named = ", ".join(f"{each.name} (pid {each.pid}, {_mib(each.memory_mib)})" for each in large[:3])
    if not large:
        return ok("nobody else computes")
    if target.running:
        return ok(f"this deployment's: {named}")
    fix = f"if nobody needs it: kill {large[0].pid}; a deployment of this tool: deckard-deploy down"
    engine = any("VLLM::" in each.name for each in large)
    return fail_if(engine and target.unified, f"{len(large)} on the GPU: {named}", fix)


def _mib(value: int | None) -> str:
    return "memory unknown" if value is None else f"{value} MiB"


@rule(
    "gpu-heat",
    when=f"warn: {HOT_C} °C or more",
    why="hot Sparks have switched off without a word",
    source="github eugr/spark-vllm-docker README; NVIDIA/open-gpu-kernel-modules issue 1358 (91 to 65 °C at 2100 MHz)",
)
def gpu_heat(facts: HostFacts, target: Target) -> Verdict | None:
    """Too hot?"""
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
    source="github Blackwellboy/model-serving-minefield, trap 124; djangodevreng.nl (2515 MHz, 45 W under load)",
)
def gpu_clock(facts: HostFacts, target: Target) -> Verdict | None:
    """Only a busy GPU shows it."""
    busy = [each for each in facts.gpus if each.compute_capability == SPARK and _busy(each)]
    if not busy:
        return None
    first = busy[0]
    found = f"{first.sm_clock_mhz} MHz, {first.power_w} W at {first.utilization_percent} %"
    if (first.sm_clock_mhz or 0) < SLOW_MHZ or (first.power_w or 0.0) < SLOW_W:
        return warn(found, "stop the server, unplug the power supply for a minute, start again")
    return ok(found)


def _busy(gpu: Gpu) -> bool:
    known = gpu.sm_clock_mhz is not None and gpu.power_w is not None
    return known and (gpu.utilization_percent or 0) >= BUSY_PERCENT
