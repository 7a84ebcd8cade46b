"""Rules about the plan on this host: disk, weights, port, exposure, and harmful settings."""

from ipaddress import ip_address

from deckard_deploy.doctor.facts import Checkpoint, Disk, HostFacts
from deckard_deploy.doctor.findings import RuleVerdict, fail, fail_if_needed, info, ok, rule, warn
from deckard_deploy.doctor.target import Target
from deckard_deploy.system.ports import NO_ADDRESS

IMAGE_GB = 25.0
HEADROOM_GB = 10.0
COMFORT_GB = 40.0
CACHE_GB = 50.0
SPARK_BATCHED_TOKENS = 32768
# quantization/modelopt.py:107 of 0.19.1
RELEASED_ALGORITHMS = (
    "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_PB_WO",
    "NVFP4",
    "MXFP8",
    "MIXED_PRECISION",
)
PATCHES_OF_QUANTIZATION = frozenset({"modelopt", "nvfp4-awq"})


@rule(
    "disk",
    when=f"fail: less free than the missing weights, {IMAGE_GB:g} GB for an image that is not here and "
    f"{HEADROOM_GB:g} GB; warn: less than {COMFORT_GB:g} GB more "
    f"(no profile: below {COMFORT_GB:g} GB in all)",
    why="a download that fills the disk fails at its end, and takes docker and the host's logs with it",
    source="20.5 GB of weights (model card), 18 to 25 GB of image "
    "(github AEON-7/vllm-ultimate-dgx-spark), caches",
    stops_up=True,
)
def disk(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Each file system has space for everything that will be stored on it."""
    disks_by_device: dict[int, list[Disk]] = {}
    for each in facts.disks:
        disks_by_device.setdefault(each.device, []).append(each)
    worst: RuleVerdict | None = None
    for _, disks in sorted(disks_by_device.items()):
        needed_gb = sum(_needed_gb(each, facts, target) for each in disks)
        verdict = _judge_space(disks, needed_gb, target)
        if worst is None or (verdict.fix and (not worst.fix or verdict.severity == "fail")):
            worst = verdict
    return worst


def _needed_gb(disk: Disk, facts: HostFacts, target: Target) -> float:
    if disk.purpose == "caches":
        return HEADROOM_GB
    if disk.purpose == "images":
        if facts.image or not target.image:
            return 0.0
        return IMAGE_GB
    present_gb = {each.model: each.size_bytes / 1e9 for each in facts.checkpoints}
    needed_gb = target.engine_gb if disk.purpose == "weights" else 0.0
    for weights in target.weights:
        needed_gb += max(0.0, weights.size_gb - present_gb.get(weights.model, 0.0))
    return needed_gb


def _judge_space(disks: list[Disk], needed_gb: float, target: Target) -> RuleVerdict:
    free_gb = disks[0].free_bytes / 1e9
    purposes = ", ".join(each.purpose for each in disks)
    what = f"{free_gb:.0f} GB free for {purposes} ({disks[0].path})"
    fix = "free some: docker system df; du -xh --max-depth=1 ~ | sort -h"
    if target.profile is None:
        return warn(what, fix) if free_gb < COMFORT_GB else ok(what)
    what = f"{what}, {needed_gb:.0f} GB to come"
    if free_gb < needed_gb:
        return fail(what, fix)
    if needed_gb >= HEADROOM_GB and free_gb < needed_gb + COMFORT_GB:
        return warn(what, fix)
    return ok(what)


@rule(
    "weights",
    when="fail: files of a downloaded model are missing, are LFS pointers, or lead out of its folder; "
    "info: not here",
    why="the container sees that folder alone; vLLM finds a missing shard only after minutes of loading",
    source="model.safetensors.index.json; git-lfs pointer format; hub cache links",
)
def weights(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The downloaded weights are complete."""
    checkpoints = {each.model: each for each in facts.checkpoints}
    sizes = []
    for model in target.weights:
        if model.repo is None:
            continue
        checkpoint = checkpoints.get(model.model)
        fix = f"deckard-deploy pull --profile {target.profile}"
        if checkpoint is None:
            return info(f"{model.model} is not here: {model.size_gb:g} GB", fix)
        problem = _file_problem(checkpoint)
        if problem:
            return fail(f"{model.model}: {problem}", fix)
        sizes.append(f"{model.model}: {checkpoint.size_bytes / 1e9:.1f} GB")
    if not sizes:
        return None
    return ok(", ".join(sizes))


def _file_problem(checkpoint: Checkpoint) -> str | None:
    problems = (
        (checkpoint.missing, "missing"),
        (checkpoint.pointers, "not fetched"),
        (checkpoint.outside, "links out"),
    )
    for names, problem in problems:
        if names:
            return f"{', '.join(names[:3])} {problem} ({len(names)} of its files)"
    return None


@rule(
    "quantization",
    when="fail: quant_algo is not one of the release's, and the plan mounts no modelopt patch",
    why="vLLM 0.19.1 refuses the checkpoint while it reads the configuration",
    source="vllm 0.19.1 model_executor/layers/quantization/modelopt.py:107; vllm-project/vllm issue 45333",
)
def quantization(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The engine can load the checkpoint's quantization."""
    if not target.weights or target.patches_in_image:
        return None
    patched = not PATCHES_OF_QUANTIZATION.isdisjoint(target.patches)
    algorithms = set()
    for checkpoint in facts.checkpoints:
        algorithm = checkpoint.quant_algo
        if not algorithm:
            continue
        if algorithm not in RELEASED_ALGORITHMS and not patched:
            return fail(
                f"{checkpoint.model} is {algorithm}, without the modelopt patch",
                "deckard-deploy patches check",
            )
        algorithms.add(algorithm)
    if not algorithms:
        return None
    return ok(", ".join(sorted(algorithms)))


@rule(
    "port",
    when="fail: a trial bind fails",
    why="vLLM binds with SO_REUSEPORT: beside another server it would not fail, it would share the port",
    source="vllm 0.19.1 entrypoints/openai/api_server.py:497",
    stops_up=True,
)
def port(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The port is free."""
    found = facts.port
    if found is None or (found.address, found.port) != (target.address, target.port):
        return None
    where = f"{found.address}:{found.port}"
    if found.problem is None:
        return ok(f"{where} is free")
    if target.holds_port:
        return ok(f"{where} is this deployment")
    if NO_ADDRESS in found.problem:
        return fail(found.problem, "an address of this machine: ip -brief address")
    return fail(found.problem, f"--port N, or end what listens there: ss -ltnp 'sport = :{found.port}'")


@rule(
    "exposure",
    when="fail: an address that others reach, while the server asks for no key; warn: the host's network",
    why="everyone who reaches the port can use the model; docker publishes past ufw",
    source="docs.docker.com/engine/network/packet-filtering-firewalls; "
    "vLLM's own key is bypassable: CVE-2026-48746",
)
def exposure(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Only this host, or a client with a key, reaches the port."""
    if target.address is None:
        return None
    firewall = {True: "; ufw is on", False: "; ufw is off", None: ""}[facts.services.firewall]
    if not ip_address(target.address).is_loopback and not target.requires_key:
        return fail(
            f"{target.address} is reachable without a key{firewall}",
            f"--expose {target.address}: through a gateway",
        )
    if target.requires_key:
        return ok(f"{target.address}, through a gateway that asks for a key{firewall}")
    if target.host_network:
        return warn(f"the container is on the host's network{firewall}", "--set container.network=bridge")
    return ok(f"{target.address} only{firewall}")


@rule(
    "token-file",
    when="warn: others on this host may read it",
    why="everyone who reads it can download gated models in your name",
    source="huggingface_hub/constants.py, HF_TOKEN_PATH",
)
def token_file(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The token file is private."""
    found = facts.token_file
    if found is None:
        return None
    if found.mode & 0o077:
        return warn(f"mode {found.mode:04o}", f"chmod 600 {found.path}")
    return ok(f"mode {found.mode:04o}")


@rule(
    "caches",
    when=f"warn: not writable; info: owned by root, or above {CACHE_GB:g} GB",
    why="without them each start compiles and tunes anew: 13 minutes in place of 2",
    source="github AEON-7/vllm-ultimate-dgx-spark README; vllm 0.19.1 envs.py, VLLM_CACHE_ROOT",
)
def caches(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The caches are writable, and not too large."""
    if not facts.cache_folders:
        return None
    for each in facts.cache_folders:
        if not each.writable:
            return warn(f"{each.path} is not writable", f"sudo chown -R $USER {each.path}")
    for each in facts.cache_folders:
        size_gb = (each.size_bytes or 0) / 1e9
        if size_gb > CACHE_GB:
            return info(
                f"{each.path} holds {size_gb:.0f} GB", f"rm -r {each.path} (the next start compiles again)"
            )
    for each in facts.cache_folders:
        if each.owner_uid == 0:
            return info(f"owned by root: {each.path}", f"to remove it: sudo rm -r {each.path}")
    return ok(f"{len(facts.cache_folders)} writable")


@rule(
    "restart-policy",
    when="warn: always or unless-stopped",
    why="a server that runs out of memory is then started forever, on a Spark until the host freezes",
    source="vllm-project/vllm issue 46307; compose-spec, restart",
)
def restart_policy(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The restart policy is bounded."""
    if target.restart is None:
        return None
    if target.restart in ("always", "unless-stopped"):
        return warn(target.restart, "--set container.restart=on-failure:2")
    return ok(target.restart)


@rule(
    "batched-tokens",
    when=f"unified memory: warn: max-num-batched-tokens above {SPARK_BATCHED_TOKENS}",
    why="65536 hung a Spark",
    source="github AEON-7/vllm-dflash issue 1",
)
def batched_tokens(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The batch of a step is not too large."""
    if not target.unified or target.batched_tokens is None:
        return None
    if target.batched_tokens > SPARK_BATCHED_TOKENS:
        return warn(str(target.batched_tokens), "--set max-num-batched-tokens=8192")
    return ok(str(target.batched_tokens))


@rule(
    "nccl-gid",
    when="fail: NCCL_IB_GID_INDEX is empty; warn: it is set",
    why="the index differs from host to host and drifts; an empty one is read as 0",
    source="github tonyd2wild/DeepSeek-v4-Flash-Vision-Exp issue 38; "
    "MiaAI-Lab/DeepSeek-v4-Flash-DSpark pull 95",
)
def nccl_gid(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """NCCL chooses its GID index itself."""
    value = target.environment.get("NCCL_IB_GID_INDEX")
    if target.profile is None:
        return None
    if value is None:
        return ok("not pinned")
    return fail_if_needed(
        value == "", f"NCCL_IB_GID_INDEX is {value!r}", "--set environment.NCCL_IB_GID_INDEX=null"
    )


@rule(
    "proxy",
    when="warn: a proxy variable is set for the endpoint's scheme, and NO_PROXY does not name its address itself",
    why="clients on this host would send their requests for the endpoint to the proxy",
    source="measured: curl 7.88, requests, urllib and httpx (of OpenAI's client) all go past the proxy for the address "
    "itself and for *, httpx not for 127.0.0.0/8; vllm-project/vllm issue 1519",
)
def proxy(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """Local requests do not go through a proxy. `localhost` in NO_PROXY does not cover 127.0.0.1."""
    if not facts.proxies:
        return ok("none")
    names = ", ".join(facts.proxies)
    address = _client_address(target)
    if ip_address(address).is_loopback and not any(_is_for_http(name) for name in facts.proxies):
        return ok(f"{names}; not for http://{address}")
    values = [facts.no_proxy]
    if facts.no_proxy_upper is not None:
        values.append(facts.no_proxy_upper)
    wrong = [value for value in values if not _exempts(value, address)]
    if not wrong:
        return ok(f"{names}; not for {address}")
    instead = f"NO_PROXY is {wrong[0]!r}" if wrong[0] else "no NO_PROXY"
    also = "; no_proxy and NO_PROXY differ" if len(values) > 1 else ""
    fix = f"export NO_PROXY={address},localhost no_proxy={address},localhost"
    return warn(f"{names} set, and {instead}, without {address}{also}", fix)


def _client_address(target: Target) -> str:
    """Return the address in the base URL that a client of this host uses."""
    if target.address is None or ip_address(target.address).is_unspecified:
        return "127.0.0.1"
    return target.address


def _is_for_http(variable: str) -> bool:
    return variable.lower() in ("http_proxy", "all_proxy")


def _exempts(no_proxy: str, address: str) -> bool:
    """Return True if every client goes past the proxy: a list with the address itself, or * alone."""
    names = [name.strip() for name in no_proxy.split(",")]
    return names == ["*"] or address in names


@rule(
    "clock",
    when="warn: not synchronized; info: unknown, systemd does not answer",
    why="with a wrong clock TLS refuses downloads, and times in logs mislead",
    source="timedatectl show -p NTPSynchronized; /proc/uptime; /sys/class/dmi/id",
)
def clock(facts: HostFacts, target: Target) -> RuleVerdict | None:
    """The clock is synchronized. Also reports uptime, product and firmware."""
    details = []
    if facts.uptime_s is not None:
        details.append(f"up {facts.uptime_s / 86400:.1f} days")
    if facts.product:
        details.append(facts.product)
    if facts.bios:
        details.append(f"BIOS {facts.bios}")
    host = ", ".join(details)
    synchronized = facts.services.clock_synchronized
    if synchronized is None:
        return info(f"not known; {host}" if host else "not known", "timedatectl; date")
    if not synchronized:
        return warn(f"not synchronized; {host}", "sudo timedatectl set-ntp true")
    return ok(f"synchronized; {host}")
