"""For every rule a host or plan with its fault, and one without.

The one without is the healthy Spark unless a case says otherwise. Changes of facts are merged into the healthy
Spark's: mappings merge, everything else is replaced.
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.doctor.facts import HostFacts
from deckard_deploy.doctor.target import Folders, Target, target_for_plan
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from tests.support.sample_choices import patched

FACTS = Path(__file__).parents[1] / "unit" / "doctor" / "facts"
GIB = 1 << 20
IMAGE = "vllm/vllm-openai:v0.19.1-cu130"
ANY = Target(folders=Folders(weights=Path("/srv/deckard/models"), caches=()))


def target(profile: str = "spark", **changes: Any) -> Target:
    """Return the target of a profile on the patched release, whose image and patches the cases name."""
    resolved = resolve(Deployment(), profile=patched(profile))
    plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    return replace(target_for_plan(resolved, plan, models=Path(DEFAULT_PATHS.models)), **changes)


def facts(changes: dict[str, Any] | None = None, *, of: str = "spark-healthy") -> HostFacts:
    base = json.loads((FACTS / f"{of}.json").read_text())
    return HostFacts.model_validate_json(json.dumps(_merged(base, changes or {})))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = {**base}
    for key, value in changes.items():
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _with_changed_entry(key: str, **changes: Any) -> dict[str, Any]:
    base = json.loads((FACTS / "spark-healthy.json").read_text())[key][0]
    return {key: [{**base, **changes}]}


def two_gpus(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return the Spark's GPU twice, each with its changes."""
    (base,) = json.loads((FACTS / "spark-healthy.json").read_text())["gpus"]
    return {"gpus": [{**base, **first}, {**base, "index": 1, **second}]}


DISPLAY_CARD = {"name": "NVIDIA RTX A400", "compute_capability": "8.6", "memory_total_mib": 4094}
spark_gpu, checkpoint = partial(_with_changed_entry, "gpus"), partial(_with_changed_entry, "checkpoints")
HEALTHY, SPARK = facts(), target()


@dataclass(frozen=True)
class RuleCase:
    """A severity and a part of the text for `facts` and `target`. The rule finds no fault in the content ones."""

    severity: str
    says: str
    facts: HostFacts = HEALTHY
    target: Target = SPARK
    content_facts: HostFacts = HEALTHY
    content_target: Target = SPARK


def disks(free_gb: int) -> dict[str, Any]:
    one = {"path": "/", "device": 1, "size_bytes": 10**12, "free_bytes": free_gb * 10**9}
    return {"disks": [{"purpose": purpose, **one} for purpose in ("weights", "caches", "images")]}


def log(kind: str, last: str) -> HostFacts:
    return facts(
        {"kernel_log": {"events": [{"kind": kind, "boot": "the boot before", "count": 2, "last": last}]}}
    )


BUSY = {"utilization_percent": 96, "sm_clock_mhz": 2515, "power_w": 45.0}
CUDA_12 = {"image": {"reference": IMAGE, "architecture": "arm64", "cuda": "12.9.1"}}
CUDA_14 = {"image": {"reference": IMAGE, "architecture": "arm64", "cuda": "14.0.0"}}
NO_RUNTIME = {"docker": {"runtimes": ["runc"]}}
ONLY_CDI = {"docker": {"runtimes": ["runc"], "version": "28.2.2"}, "cdi_specs": ["nvidia.yaml"]}
ENGINE = {"gpu_processes": [{"pid": 7, "name": "VLLM::EngineCore", "memory_mib": 104277}]}
OTHER = {"gpu_processes": [{"pid": 8, "name": "/usr/bin/ollama", "memory_mib": 5222}]}
EARLYOOM = 'sending SIGTERM to process 7 uid 0 "VLLM::EngineCor": oom_score 800, VmRSS 90000 MiB'
LINE = "NVRM: Xid (PCI:0000:cb:00): 13, pid='<unknown>', name=<unknown>"

CASES: dict[str, list[RuleCase]] = {
    "architecture": [RuleCase("fail", "x86_64, and spark is for arm64", facts({"architecture": "x86_64"}))],
    "gpu": [
        RuleCase(
            "fail",
            "nvidia-smi is not installed",
            facts({"gpus": [], "gpu_problem": "nvidia-smi is not installed"}),
        ),
        RuleCase("warn", "no GPU: -", facts({"gpus": [], "gpu_problem": "no GPU: -"}), ANY),
        RuleCase("fail", "1 GPU here, 2 are reserved", target=target(gpu_count=2)),
        RuleCase(
            "fail",
            "0 GPU here, 1 are reserved",
            target=target(gpu_ids=("1",)),
            content_target=target(gpu_ids=("0",)),
        ),
        RuleCase(
            "info",
            "this machine has no NVIDIA GPU",
            facts({"gpus": [], "gpu_problem": "nvidia-smi is not installed", "nvidia_devices": 0}),
            ANY,
        ),
        RuleCase(
            "warn",
            "1 NVIDIA GPU on the PCI bus, and no driver",
            facts({"gpus": [], "gpu_problem": "nvidia-smi is not installed", "nvidia_devices": 1}),
            ANY,
        ),
        RuleCase(
            "warn",
            "device handle for GPU0000:BA:00.0: Unknown Error",
            facts(
                {"gpu_problem": "Unable to determine the device handle for GPU0000:BA:00.0: Unknown Error"}
            ),
        ),
    ],
    "gpu-state": [
        RuleCase("fail", "GPU requires reset", facts(spark_gpu(problem="GPU requires reset"))),
        RuleCase("warn", "GPU is lost", facts(spark_gpu(problem="GPU is lost")), ANY),
        RuleCase("fail", "Prohibited", facts(spark_gpu(compute_mode="Prohibited"))),
    ],
    "mig": [
        RuleCase(
            "fail", "MIG is on for GPU 0: 3g.90gb", facts(spark_gpu(mig="Enabled", mig_devices=["3g.90gb"]))
        ),
        RuleCase("warn", "no slice yet", facts(spark_gpu(mig="Enabled")), ANY),
        RuleCase(
            "fail",
            "GPU 1",
            facts(two_gpus({}, {"mig": "Enabled"})),
            target(gpu_ids=("1",)),
            content_facts=facts(two_gpus({}, {"mig": "Enabled"})),
        ),
    ],
    "fabric": [
        RuleCase(
            "fail",
            "GPU 0: In Progress",
            facts(spark_gpu(fabric="In Progress")),
            content_facts=facts(spark_gpu(fabric="Completed")),
        ),
        RuleCase(
            "warn",
            "Completed: Not Supported",
            facts(spark_gpu(fabric="Completed: Not Supported")),
            ANY,
            content_facts=facts(spark_gpu(fabric="Completed")),
        ),
    ],
    "gpu-model": [
        RuleCase(
            "fail",
            "spark is for NVIDIA GB10, 12.1",
            facts(spark_gpu(name="NVIDIA B200", compute_capability="10.0")),
        ),
        RuleCase(
            "warn",
            "expects the name NVIDIA GB10",
            facts(spark_gpu(name="Another")),
            content_facts=facts(spark_gpu(name="JMJWOA")),
        ),
        RuleCase(
            "fail",
            "NVIDIA RTX A400",
            facts(two_gpus(DISPLAY_CARD, {})),
            content_facts=facts(two_gpus(DISPLAY_CARD, {})),
            content_target=target(gpu_ids=("1",)),
        ),
    ],
    "driver": [
        RuleCase("fail", "570.133.20 is older than 580", facts(spark_gpu(driver="570.133.20"))),
        RuleCase("warn", "570.133.20 is older than 580", facts(spark_gpu(driver="570.133.20")), ANY),
        RuleCase("warn", "is older than 580", facts({**spark_gpu(driver="570.1"), **CUDA_12})),
        RuleCase("warn", "CUDA graphs deadlock", facts(spark_gpu(driver="590.48.01"))),
        RuleCase("info", "610", facts(spark_gpu(driver="610.10"))),
    ],
    "cuda": [
        RuleCase("warn", "CUDA 14.0.0, the driver 13.0", facts(CUDA_14), content_facts=facts(CUDA_12)),
    ],
    "gpu-memory-reading": [
        RuleCase(
            "warn",
            "GPU 0 tells no memory",
            facts(spark_gpu(compute_capability="10.0")),
            target("b200"),
            content_facts=facts(of="b200"),
            content_target=target("b200"),
        ),
        RuleCase(
            "warn",
            "GPU 0 tells no memory",
            facts(spark_gpu(compute_capability="9.0")),
            ANY,
            content_target=ANY,
        ),
    ],
    "gpu-processes": [
        RuleCase("fail", "VLLM::EngineCore (pid 7, 104277 MiB)", facts(ENGINE)),
        RuleCase(
            "warn",
            "ollama (pid 8, 5222 MiB)",
            facts(OTHER),
            content_facts=facts(ENGINE),
            content_target=target(running=True),
        ),
        RuleCase("warn", "VLLM::EngineCore (pid 7", facts(ENGINE), target(engines_beside=1)),
        RuleCase("warn", "VLLM::EngineCore", facts(of="b200"), target("b200")),
    ],
    "gpu-heat": [RuleCase("warn", "85 °C", facts(spark_gpu(temperature_c=85)))],
    "gpu-clock": [
        RuleCase(
            "warn",
            "799 MHz, 19.5 W at 96 %",
            facts(spark_gpu(**{**BUSY, "sm_clock_mhz": 799, "power_w": 19.5})),
            content_facts=facts(spark_gpu(**BUSY)),
        )
    ],
    "memory-total": [RuleCase("warn", "96.0 GiB of the 121.69", facts({"memory": {"total_kib": 96 * GIB}}))],
    "memory-available": [
        RuleCase(
            "fail", "97.0 GiB available, 97.4 GiB wanted", facts({"memory": {"available_kib": 97 * GIB}})
        ),
        RuleCase("warn", "less than 8 GiB stay", facts({"memory": {"available_kib": 100 * GIB}})),
        RuleCase(
            "warn",
            "1.0 GiB",
            facts({"memory": {"available_kib": GIB}}),
            target("cpu"),
            content_target=target("cpu"),
        ),
        RuleCase(
            "fail",
            "GPU 1: 16.4 GiB free, 152.2 GiB wanted",
            facts(of="b200"),
            target("b200", gpu_count=2),
            content_facts=facts(of="b200"),
            content_target=target("b200"),
        ),
    ],
    "footprint": [
        RuleCase(
            "fail",
            "28.0 GiB before any KV cache, room for 22.0",
            facts({"memory": {"available_kib": 30 * GIB}}),
        ),
        RuleCase("fail", "room for 12.2 GiB", target=target(utilization=0.1)),
    ],
    "page-cache": [
        RuleCase("warn", "GiB of cache", facts({"memory": {"free_kib": 90 * GIB}})),
        RuleCase(
            "warn",
            "4.0 GiB free",
            facts({"memory": {"free_kib": 4 * GIB, "available_kib": 6 * GIB}}),
            content_facts=facts({"memory": {"free_kib": 4 * GIB, "available_kib": 6 * GIB}}),
            content_target=target(running=True),
        ),
    ],
    "swap": [
        RuleCase("warn", "2.0 GiB used", facts({"memory": {"swap_free_kib": 14 * GIB}})),
        RuleCase("info", "none", facts({"memory": {"swap_total_kib": 0, "swap_free_kib": 0}})),
    ],
    "min-free": [RuleCase("warn", "6501171", facts({"memory": {"min_free_kib": 6501171}}))],
    "memory-pressure": [
        RuleCase("warn", "1.5 %", facts({"memory": {"pressure_full_avg10": 1.5}})),
        RuleCase("fail", "38.2 %", facts({"memory": {"pressure_full_avg10": 38.2}})),
    ],
    "kernel-log": [
        RuleCase(
            "warn", "GPU error (Xid): 2 in the boot before; last: NVRM: Xid", log("GPU error (Xid)", LINE)
        ),
        RuleCase("info", "could not be read: dmesg: no", facts({"kernel_log": {"problem": "dmesg: no"}})),
        RuleCase("warn", "ended by earlyoom", log("process ended by earlyoom", EARLYOOM)),
    ],
    "cma": [
        RuleCase(
            "warn",
            "CmaFree 940604 kB is more than CmaTotal 0 kB",
            facts({"memory": {"cma_total_kib": 0, "cma_free_kib": 940604}}),
            content_facts=facts({"memory": {"cma_total_kib": 65536, "cma_free_kib": 1024}}),
        )
    ],
    "remove-ipc": [
        RuleCase(
            "warn",
            "RemoveIPC=yes",
            facts({"services": {"remove_ipc": True}}),
            target("cpu"),
            content_facts=facts({"services": {"remove_ipc": False}}),
            content_target=target("cpu"),
        ),
        RuleCase(
            "info",
            "RemoveIPC=yes",
            facts({"services": {"remove_ipc": True}}),
            ANY,
            content_facts=facts({"services": {"remove_ipc": False}}),
            content_target=ANY,
        ),
    ],
    "early-oom": [RuleCase("info", "nobody watches", facts({"services": {"early_oom": False}}))],
    "desktop": [
        RuleCase(
            "warn",
            "graphical.target",
            facts({"services": {"desktop": True}}),
            content_facts=facts({"services": {"desktop": True}}),
            content_target=target(utilization=0.75),
        )
    ],
    "docker": [
        RuleCase("fail", "docker is not installed", facts(of="laptop-no-docker")),
        RuleCase("warn", "docker is not installed", facts(of="laptop-no-docker"), ANY),
        RuleCase(
            "fail",
            "permission denied",
            facts({"docker": {"problem": "permission denied while trying to connect"}}),
        ),
        RuleCase(
            "fail", "Cannot connect", facts({"docker": {"problem": "Cannot connect to the Docker daemon"}})
        ),
        RuleCase("fail", "is podman", facts({"docker": {"product": "podman", "version": "5.4.1"}})),
        RuleCase("fail", "docker from snap", facts({"docker": {"product": "docker from snap"}})),
        RuleCase("fail", "Docker Desktop, whose", facts({"docker": {"product": "Docker Desktop"}})),
        RuleCase(
            "warn",
            "Docker Desktop on WSL",
            facts({"docker": {"product": "Docker Desktop"}, "kernel": "6.6.87.2-microsoft-standard-WSL2"}),
        ),
        RuleCase(
            "fail",
            "another machine over ssh (by DOCKER_HOST)",
            facts({"docker": {"endpoint": "ssh", "named_by": "DOCKER_HOST"}}),
            content_facts=facts({"docker": {"endpoint": "unix", "named_by": "DOCKER_HOST"}}),
        ),
        RuleCase(
            "fail",
            "its kernel is 6.10.14-linuxkit",
            facts({"docker": {"kernel": "6.10.14-linuxkit"}, "kernel": "6.17.0-1032-nvidia"}),
            content_facts=facts({"docker": {"kernel": "6.17.0-1032-nvidia"}, "kernel": "6.17.0-1032-nvidia"}),
        ),
    ],
    "docker-users": [
        RuleCase("warn", "rootless", facts({"docker": {"security": ["seccomp", "rootless"]}})),
        RuleCase("warn", "userns-remap", facts({"docker": {"security": ["userns"]}})),
    ],
    "selinux": [RuleCase("warn", "labels its containers", facts({"docker": {"security": ["selinux"]}}))],
    "live-restore": [
        RuleCase(
            "info",
            "off",
            facts({"docker": {"live_restore": False}}),
            content_facts=facts({"docker": {"live_restore": True}}),
        )
    ],
    "docker-version": [
        RuleCase("warn", "20.10.24+dfsg1 is old", facts({"docker": {"version": "20.10.24+dfsg1"}}))
    ],
    "compose": [
        RuleCase("fail", "no compose plugin", facts({"docker": {"compose": None}})),
        RuleCase("fail", "2.19.1 is old", facts({"docker": {"compose": "2.19.1"}})),
        RuleCase("warn", "2.19.1 is old", facts({"docker": {"compose": "2.19.1"}}), ANY),
    ],
    "gpu-runtime": [
        RuleCase("fail", "docker's runtimes are runc", facts(NO_RUNTIME)),
        RuleCase(
            "warn",
            "docker's runtimes are runc",
            facts(NO_RUNTIME),
            ANY,
            content_facts=facts(ONLY_CDI | {"docker": {"runtimes": ["runc"], "version": "29.2.1"}}),
        ),
        RuleCase(
            "fail",
            "only CDI (nvidia.yaml), which is off in docker 28.2.2",
            facts(ONLY_CDI),
            content_facts=facts(
                ONLY_CDI | {"docker": {"runtimes": ["runc"], "version": "28.2.2", "cdi": True}}
            ),
        ),
    ],
    "image-platform": [
        RuleCase(
            "fail",
            "is for amd64, this host is arm64",
            facts({"image": {"reference": IMAGE, "architecture": "amd64"}}),
            content_facts=facts(CUDA_12),
        )
    ],
    "advisories": [
        RuleCase(
            "warn", "vLLM 0.19.1: CVE-2026-48746, CVE-2026-9540, ", target=target(address="192.168.1.20")
        ),
    ],
    "engine-libraries": [
        RuleCase(
            "fail",
            "libnuma.so.1 is missing",
            facts({"libraries": []}),
            target("cpu", libraries={"libnuma.so.1": "apt-get install libnuma1"}),
            content_facts=facts({"libraries": ["libnuma.so.1"]}),
            content_target=target("cpu", libraries={"libnuma.so.1": "apt-get install libnuma1"}),
        )
    ],
    "gateway-program": [
        RuleCase(
            "info",
            "no nginx",
            facts({"nginx": False}),
            target("cpu"),
            content_facts=facts({"nginx": True}),
            content_target=target("cpu"),
        )
    ],
    "disk": [
        RuleCase(
            "fail",
            "3 GB free for weights, caches, images (/), 18 GB to come",
            facts(disks(3)),
            target("cpu", engine_gb=7.9),
            content_facts=facts(disks(60)),
            content_target=target("cpu"),
        ),
        RuleCase("fail", "30 GB free for weights, caches, images (/), 35 GB to come", facts(disks(30))),
        RuleCase("warn", "60 GB free", facts(disks(60))),
        RuleCase("warn", "30 GB free", facts(disks(30)), ANY, content_target=ANY),
        # 20.45 GB of weights and 25 of image on one small disk each: the small one is what is said
        RuleCase(
            "fail",
            "20 GB free for images",
            facts(
                {"disks": [{**disks(9999)["disks"][0], "device": 3}, {**disks(20)["disks"][2], "device": 2}]}
            ),
        ),
    ],
    "weights": [
        RuleCase(
            "fail", "a.safetensors missing (1 of its files)", facts(checkpoint(missing=["a.safetensors"]))
        ),
        RuleCase("fail", "not fetched", facts(checkpoint(pointers=["model.safetensors"]))),
        RuleCase("fail", "links out", facts(checkpoint(outside=["model.safetensors"]))),
        RuleCase("info", "deckard-31b is not here: 20.45 GB", facts({"checkpoints": []})),
    ],
    "quantization": [
        RuleCase("fail", "deckard-31b is NVFP4_AWQ, without the modelopt patch", target=target(patches=())),
        RuleCase("fail", "NVFP4_SVD", facts(checkpoint(quant_algo="NVFP4_SVD")), target(patches=("eagle",))),
    ],
    "port": [
        RuleCase(
            "fail",
            "python (pid 4) listens there",
            facts({"port": {"problem": "127.0.0.1:8000 cannot be used: python (pid 4) listens there"}}),
            content_facts=facts({"port": {"problem": "127.0.0.1:8000 cannot be used: it is ours"}}),
            content_target=target(running=True, holds_port=True),
        ),
        RuleCase(
            "fail", "is no address", facts({"port": {"problem": "10.9.9.9 is no address of this machine"}})
        ),
    ],
    "exposure": [
        RuleCase("fail", "0.0.0.0 is reachable without a key; ufw is off", target=target(address="0.0.0.0")),
        RuleCase("warn", "on the host's network", target=target(host_network=True)),
        RuleCase(
            "fail",
            "192.168.1.20 is reachable",
            target=target(address="192.168.1.20"),
            content_target=target(address="192.168.1.20", requires_key=True),
        ),
        RuleCase(
            "fail",
            "fd00::1 is reachable",
            target=target(address="fd00::1"),
            content_target=target(address="::1"),
        ),
    ],
    "token-file": [RuleCase("warn", "mode 0644", facts({"token_file": {"mode": 0o644}}))],
    "caches": [
        RuleCase(
            "warn",
            "is not writable",
            facts({"cache_folders": [{"path": "/c", "writable": False, "owner_uid": 0}]}),
        ),
        RuleCase(
            "info",
            "owned by root",
            facts({"cache_folders": [{"path": "/c", "writable": True, "owner_uid": 0}]}),
        ),
        RuleCase(
            "info",
            "/c holds 51 GB",
            facts(
                {
                    "cache_folders": [
                        {"path": "/c", "writable": True, "owner_uid": 1, "size_bytes": 51 * 10**9}
                    ]
                }
            ),
        ),
    ],
    "restart-policy": [
        RuleCase("warn", "always", target=target(restart="always")),
        RuleCase("warn", "unless-stopped", target=target(restart="unless-stopped")),
    ],
    "batched-tokens": [RuleCase("warn", "65536", target=target(batched_tokens=65536))],
    "nccl-gid": [
        RuleCase("warn", "is '3'", target=target(environment={"NCCL_IB_GID_INDEX": "3"})),
        RuleCase("fail", "is ''", target=target(environment={"NCCL_IB_GID_INDEX": ""})),
    ],
    "proxy": [
        RuleCase(
            "warn",
            "http_proxy set, and NO_PROXY is 'localhost', without 127.0.0.1",
            facts({"proxies": ["http_proxy"], "no_proxy": "localhost"}),
            content_facts=facts({"proxies": ["http_proxy"], "no_proxy": "intranet.example, 127.0.0.1"}),
        ),
        RuleCase(
            "warn",
            "127.0.0.0/8",
            facts({"proxies": ["all_proxy"], "no_proxy": "127.0.0.0/8"}),
            content_facts=facts({"proxies": ["all_proxy"], "no_proxy": "*"}),
        ),
        RuleCase(
            "warn",
            "no_proxy and NO_PROXY differ",
            facts({"proxies": ["HTTP_PROXY"], "no_proxy": "127.0.0.1", "no_proxy_upper": "localhost"}),
            content_facts=facts({"proxies": ["HTTPS_PROXY"], "no_proxy": "localhost"}),
        ),
        RuleCase(
            "warn",
            "without 192.168.1.20",
            facts({"proxies": ["https_proxy"], "no_proxy": "127.0.0.1"}),
            target(address="192.168.1.20", requires_key=True),
            content_facts=facts({"proxies": ["https_proxy"], "no_proxy": "192.168.1.20"}),
            content_target=target(address="192.168.1.20", requires_key=True),
        ),
    ],
    "clock": [
        RuleCase("warn", "not synchronized", facts({"services": {"clock_synchronized": False}})),
        RuleCase("info", "not known", facts({"services": {"clock_synchronized": None}})),
    ],
}
