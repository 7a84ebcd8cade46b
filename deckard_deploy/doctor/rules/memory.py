"""Rules about memory, the kernel log and the services next to the server."""

from typing import NamedTuple

from deckard_deploy.catalog.resolution import UNIFIED_RESERVE_GIB as RESERVE_GIB
from deckard_deploy.doctor.facts import HostFacts, HostMemory
from deckard_deploy.doctor.findings import RuleVerdict, fail, info, ok, rule, warn
from deckard_deploy.doctor.rules.gpu import SPARK, plan_gpus
from deckard_deploy.doctor.target import Target

GIB = 1 << 20  # in KiB
ENGINE_GIB, GRAPHS_GIB = 7.0, 2.0
CACHE_GIB, LEAST_FREE_GIB = 20.0, 8.0
TOTAL_SHARE = 0.9
CPU_GIB = 2.0
SWAP_GIB, MIN_FREE_GIB = 1.0, 2.0
PRESSURE_WARN, PRESSURE_FAIL = 1.0, 10.0
DESKTOP_UTILIZATION = 0.8
# Below it, weights and engine with some KV cache do not fit: 28 of 121.69 GiB.
LEAST_UTILIZATION = 0.3
DROP_CACHES = "sudo sh -c 'sync; echo 3 > /proc/sys/vm/drop_caches'"


def _gib(kib: float) -> str:
    return f"{kib / GIB:.1f} GiB"


@rule(
    "memory-total",
    when=f"warn: less than {TOTAL_SHARE:.0%} of the profile's memory",
    why="the profile's settings were chosen for its memory; firmware or a carve-out may hold the rest",
    source="github MiaAI-Lab/GLM-5.3-Flash-EXL3-2x-DGX-Sparks issue 47 (121.69 GiB on a Spark)",
)
def memory_total(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The host has the profile's memory."""
    if facts.memory is None:
        return None
    total = facts.memory.total_kib
    if target.unified and target.memory_gib and total < TOTAL_SHARE * target.memory_gib * GIB:
        return warn(f"{_gib(total)} of the {target.memory_gib:g} GiB that {target.profile} has", "free -h")
    return ok(_gib(total))


@rule(
    "memory-available",
    when="fail: less is free than gpu-memory-utilization asks for; unified memory: warn: less than "
    f"{RESERVE_GIB:g} GiB more; cpu: warn: below {CPU_GIB:g} GiB",
    why="vLLM refuses to start with less; on unified memory a start without a reserve can take the host down",
    source="vllm 0.19.1 v1/worker/utils.py:412, utils/mem_utils.py:105; vllm-project/vllm issue 46307",
    stops_up=True,
)
def memory_available(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The free memory passes vLLM's own check at start."""
    if target.memory is None or target.running:
        return None
    if target.memory == "discrete":
        return _judge_discrete(facts, target)
    if facts.memory is None:
        return None
    if target.unified:
        return _judge_unified(facts.memory, target)
    return _judge_host(facts.memory.available_kib)


def _judge_host(free: int) -> RuleVerdict:
    if free < CPU_GIB * GIB:
        return warn(f"{_gib(free)}; the rehearsal's server takes about {CPU_GIB:g}", "free some: free -h")
    return ok(_gib(free))


def _judge_unified(memory: HostMemory, target: Target) -> RuleVerdict:
    free = memory.available_kib
    wanted = target.utilization * memory.total_kib
    found = f"{_gib(free)} available, {_gib(wanted)} wanted (utilization {target.utilization:g})"
    if free >= wanted + RESERVE_GIB * GIB:
        return ok(found)
    lower = int(100 * (free - RESERVE_GIB * GIB) / memory.total_kib) / 100
    smaller = f"deckard-deploy up with --set gpu-memory-utilization={lower}"
    if free >= wanted:  # guard: F44
        return warn(f"{found}: less than {RESERVE_GIB:g} GiB stay for the host", smaller)
    fix = "stop what holds memory: ps aux --sort=-rss | head"
    if lower >= LEAST_UTILIZATION:
        fix = f"{fix}; or {smaller}"
    return fail(found, fix)


class _GpuMemory(NamedTuple):
    gpu_index: int
    free_mib: float
    wanted_mib: float

    @property
    def reserve_mib(self) -> float:
        return self.free_mib - self.wanted_mib


def _judge_discrete(facts: HostFacts, target: Target) -> RuleVerdict | None:
    known = []
    for gpu in plan_gpus(facts, target):
        total, used = gpu.memory_total_mib, gpu.memory_used_mib
        if total is not None and used is not None:
            known.append(_GpuMemory(gpu.index, total - used, target.utilization * total))
    if not known:
        return None
    worst = min(known, key=lambda each: each.reserve_mib)
    free, wanted = _gib(worst.free_mib * 1024), _gib(worst.wanted_mib * 1024)
    found = f"GPU {worst.gpu_index}: {free} free, {wanted} wanted"
    if worst.reserve_mib >= 0:
        return ok(found)
    other = "another GPU: --set environment.CUDA_VISIBLE_DEVICES=N"
    return fail(
        found, f"stop what holds it (nvidia-smi), or a smaller --set gpu-memory-utilization=N, or {other}"
    )


@rule(
    "footprint",
    when=f"unified memory: fail: weights, drafter, {ENGINE_GIB:g} GiB of engine and {GRAPHS_GIB:g} "
    f"of CUDA graphs, before any KV cache, exceed utilization or what is available less {RESERVE_GIB:g} GiB",
    why="an allocation that cannot be met freezes a machine with unified memory instead of failing",
    source="NVIDIA/open-gpu-kernel-modules issue 1358; engine 5.4 to 6.7 GiB in public Spark logs",
    stops_up=True,
)
def footprint(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Weights and engine fit, before any KV cache."""
    if facts.memory is None or not target.unified or not target.weights or target.running:
        return None
    weights_kib = sum(each.size_gb for each in target.weights) * 1e9 / 1024
    needed_kib = weights_kib + (ENGINE_GIB + GRAPHS_GIB) * GIB
    utilized_kib = target.utilization * facts.memory.total_kib
    usable_kib = min(utilized_kib, facts.memory.available_kib - RESERVE_GIB * GIB)
    found = f"{_gib(needed_kib)} before any KV cache, room for {_gib(max(usable_kib, 0.0))}"
    if needed_kib >= usable_kib:
        return fail(found, "stop what holds memory, or choose a smaller model")
    return ok(found)


@rule(
    "page-cache",
    when=f"unified memory: warn: more than {CACHE_GIB:g} GiB of cache, "
    f"or MemFree below {LEAST_FREE_GIB:g} GiB",
    why="MemAvailable counts page cache as free, but cudaMalloc can fail before the kernel gives it back",
    source="vllm-project/vllm issue 48140 and pull request 35356; "
    "tonyd2wild/GLM-5.3-Flash-NVFP4-DFlash2 pull 19",
)
def page_cache(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Memory is free, and not only reclaimable."""
    if facts.memory is None or not target.unified:
        return None
    free = facts.memory.free_kib
    cache = facts.memory.available_kib - free
    found = f"{_gib(max(cache, 0))} of cache, {_gib(free)} free"
    if cache > CACHE_GIB * GIB or (free < LEAST_FREE_GIB * GIB and not target.running):
        return warn(found, DROP_CACHES)
    return ok(found)


@rule(
    "swap",
    when=f"warn: more than {SWAP_GIB:g} GiB used; info: none",
    why="a server that swaps answers slowly; without swap the host has no slack at all",
    source="proc(5), /proc/meminfo; thresholds are this project's",
)
def swap(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Swap exists and is hardly used."""
    if facts.memory is None:
        return None
    if facts.memory.swap_total_kib == 0:
        return info(
            "none",
            "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon "
            "/swapfile (8 GB of disk)",
        )
    used = facts.memory.swap_total_kib - facts.memory.swap_free_kib
    if used > SWAP_GIB * GIB:
        fix = "stop what is not needed: ps aux --sort=-rss | head"
        # swapoff brings all of it back into memory, and where it does not fit, the kernel ends processes.
        if facts.memory.available_kib > used + RESERVE_GIB * GIB:
            fix += "; then, which reads it back into memory: sudo swapoff -a && sudo swapon -a"
        return warn(f"{_gib(used)} used", fix)
    return ok(f"{_gib(used)} of {_gib(facts.memory.swap_total_kib)} used")


@rule(
    "min-free",
    when=f"warn: vm.min_free_kbytes above {MIN_FREE_GIB:g} GiB",
    why="it lowers MemAvailable (6.2 GiB were seen), so that vLLM's check at start fails",
    source="github tonyd2wild/GLM-5.3-Flash-NVFP4-DFlash2-2x-DGX-Spark pull request 19",
)
def min_free(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """vm.min_free_kbytes has not been raised."""
    if facts.memory is None or facts.memory.min_free_kib is None:
        return None
    min_free_kib = facts.memory.min_free_kib
    if min_free_kib > MIN_FREE_GIB * GIB:
        return warn(f"vm.min_free_kbytes is {min_free_kib}", "sudo sysctl vm.min_free_kbytes=65536")
    return ok(f"{min_free_kib} KiB")


@rule(
    "memory-pressure",
    when=f"warn: above {PRESSURE_WARN:g} %, fail: above {PRESSURE_FAIL:g} % (`full avg10`)",
    why="all processes stand still for that share of the time, waiting for memory",
    source="docs.kernel.org/accounting/psi.html; thresholds are this project's",
)
def memory_pressure(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Processes do not wait for memory."""
    if facts.memory is None or facts.memory.pressure_full_avg10 is None:
        return None
    share = facts.memory.pressure_full_avg10
    what = f"{share:g} % of the last 10 s"
    fix = "stop what needs memory: ps aux --sort=-rss | head"
    if share > PRESSURE_FAIL:
        return fail(what, fix)
    if share > PRESSURE_WARN:
        return warn(what, fix)
    return ok(f"{share:g} %")


@rule(
    "cma",
    when="unified memory: warn: CmaFree above CmaTotal",
    why="this kernel keeps some 26 GiB from every program, and cannot register memory for RDMA",
    source="MiaAI-Lab/DeepSeek-v4-Flash-DSpark-2x-DGX-Spark issue 259: kernel 7.0.0-1019-nvidia, 88 GiB free in place "
    "of 114, on two pairs of Sparks; eugr/spark-vllm-docker issues 389 and 392",
)
def cma(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The kernel's account of contiguous memory is possible."""
    if facts.memory is None or not (target.unified or _is_spark(facts)):
        return None
    total, free = facts.memory.cma_total_kib, facts.memory.cma_free_kib
    if total is None or free is None:
        return None
    if free > total:
        return warn(
            f"CmaFree {free} kB is more than CmaTotal {total} kB, {_gib(facts.memory.free_kib)} are free (kernel "
            f"{facts.kernel or 'unknown'})",
            "add kho=off to GRUB_CMDLINE_LINUX in /etc/default/grub, then: sudo update-grub, and reboot (kexec "
            "handover is off then); or boot a kernel 6.17",
        )
    return ok(f"CmaFree {free} of {total} kB")


def _is_spark(facts: HostFacts) -> bool:
    return any(each.compute_capability == SPARK for each in facts.gpus)


# The causes in the kernel log that say more than a crash does, and what mends each.
_EVENT_FIXES = {
    "driver versions differ": "reboot: the driver was updated, and the old kernel module still runs",
    "open kernel modules needed": "sudo apt-get install nvidia-open, then reboot: this GPU has no other module",
    "module refused by Secure Boot": "sudo mokutil --import the key of the module, and confirm it at the next boot; or "
    "switch Secure Boot off in the firmware",
    "process ended by earlyoom": "a smaller --set gpu-memory-utilization=N; who was ended: journalctl -u earlyoom",
    "process ended by systemd-oomd": "a smaller --set gpu-memory-utilization=N; who was ended: journalctl -u "
    "systemd-oomd",
}


@rule(
    "kernel-log",
    when="warn: NV_ERR_NO_MEMORY, a process that the kernel, earlyoom or systemd-oomd ended for memory, an Xid, or a "
    "refused or mismatching driver, in this boot or the one before; info: it could not be read",
    why="Sparks have frozen after the first; alone it proves nothing, healthy starts log it too",
    source="NVIDIA/open-gpu-kernel-modules issue 1358; vllm-project/vllm issue 56824; "
    "NVIDIA/dgx-spark-playbooks 97; rfjakob/earlyoom kill.c; systemd oomd-manager.c",
)
def kernel_log(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The kernel log has no event of memory or GPUs."""
    log = facts.kernel_log
    if log is None:
        return None
    if log.problem:
        return info(
            f"could not be read: {log.problem}", "sudo journalctl -k -b | grep -E 'NVRM|Out of memory'"
        )
    if not log.events:
        return ok("nothing of memory or GPUs")
    events = "; ".join(f"{each.kind}: {each.count} in {each.boot}" for each in log.events)
    # A cause that is known and of this boot says most.
    telling = [each for each in log.events if each.boot == "this boot" and each.kind in _EVENT_FIXES]
    first = (telling or log.events)[0]
    fix = _EVENT_FIXES.get(first.kind, "journalctl -k -b; after a freeze, switch it off and on")
    return warn(f"{events}; last: {first.last}", fix)


@rule(
    "early-oom",
    when="unified memory: info: neither earlyoom nor systemd-oomd is active",
    why="they end a process before the machine freezes; the kernel's own killer comes too late there",
    source="spark-arena/sparkrun sets up earlyoom -m 2 -s 80; "
    "NVIDIA/dgx-spark-playbooks issue 97 (no kill, a reset)",
)
def early_oom(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """An early killer of processes is active."""
    if not target.unified or facts.services.early_oom is None:
        return None
    if not facts.services.early_oom:
        return info("nobody watches", "sudo apt-get install earlyoom")
    return ok("active")


@rule(
    "desktop",
    when=f"unified memory: warn: a graphical session from utilization {DESKTOP_UTILIZATION:g} on",
    why="the desktop takes from the same memory; at 0.80 it was killed, on other kits 0.87 works",
    source="sovgrid.org, gemma-4-31b-nvfp4; MiaAI-Lab/GLM-5.3-Flash-EXL3-2x-DGX-Sparks issue 47",
)
def desktop(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """No desktop shares the memory, or utilization leaves enough for it."""
    if not target.unified or facts.services.desktop is None:
        return None
    if not facts.services.desktop:
        return ok("no graphical session")
    if target.utilization >= DESKTOP_UTILIZATION:
        found = f"graphical.target, and utilization is {target.utilization:g}"
        fix = (
            "--set gpu-memory-utilization=0.75; or, which ends the graphical session and all programs in it: "
        )
        return warn(found, f"{fix}sudo systemctl isolate multi-user.target")
    return ok("graphical")


@rule(
    "remove-ipc",
    when="warn: logind deletes this user's shared memory at logout, and the engine is a process of this user; "
    "info: no profile was named",
    why="an engine that outlives the session loses its queues in /dev/shm, and hangs or dies",
    source="vllm-project/vllm issue 54259 (psm_ segments, RemoveIPC=yes); logind.conf(5)",
)
def remove_ipc(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The shared memory of an engine survives a logout. A container has /dev/shm of its own, and is root's."""
    if facts.services.remove_ipc is None or target.needs_docker:
        return None
    if not facts.services.remove_ipc:
        return ok("RemoveIPC does not concern this user")
    found = "RemoveIPC=yes, and no session of this user lingers"
    fix = "sudo loginctl enable-linger $USER"
    if target.needs_docker is None:
        return info(found, fix)
    return warn(found, fix)
