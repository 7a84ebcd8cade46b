"""Rules about what the plan asks of this host: disk, weights, port, who may reach it, and settings that harm."""

from ipaddress import ip_address

from deckard_deploy.doctor.facts import Disk, HostFacts
from deckard_deploy.doctor.findings import Verdict, fail, fail_if, info, ok, rule, warn
from deckard_deploy.doctor.target import Target

IMAGE_GB, HEADROOM_GB, COMFORT_GB = 25.0, 10.0, 40.0
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


@rule(
    "disk",
    when=f"fail: less free than the missing weights, {IMAGE_GB:g} GB for an image that is not here and "
    f"{HEADROOM_GB:g} GB; warn: less than {COMFORT_GB:g} GB more (no profile: below {COMFORT_GB:g} GB in all)",
    why="a download that fills the disk fails at its end, and takes docker and the host's logs with it",
    source="20.5 GB of weights (model card), 18 to 25 GB of image (github AEON-7/vllm-ultimate-dgx-spark), caches",
    stops_up=True,
)
def disk(facts: HostFacts, target: Target) -> Verdict | None:
    """Each file system with all that will land on it."""
    worst: Verdict | None = None
    for device in sorted({each.device for each in facts.disks}):
        disks = [each for each in facts.disks if each.device == device]
        verdict = _room(disks, sum(_needed_gb(each, facts, target) for each in disks), target)
        if worst is None or (verdict.fix and (not worst.fix or verdict.severity == "fail")):
            worst = verdict
    return worst


def _needed_gb(disk: Disk, facts: HostFacts, target: Target) -> float:
    if disk.purpose == "images":
        return 0.0 if facts.image or not target.image else IMAGE_GB
    if disk.purpose == "caches":
        return HEADROOM_GB
    here = {each.model: each.size_bytes / 1e9 for each in facts.checkpoints}
    return sum(max(0.0, each.size_gb - here.get(each.model, 0.0)) for each in target.weights)


def _room(disks: list[Disk], needed: float, target: Target) -> Verdict:
    free = disks[0].free_bytes / 1e9
    what = f"{free:.0f} GB free for {', '.join(each.purpose for each in disks)} ({disks[0].path})"
    fix = "free some: docker system df; du -xh --max-depth=1 ~ | sort -h"
    if target.profile is None:
        return ok(what) if free >= COMFORT_GB else warn(what, fix)
    what = f"{what}, {needed:.0f} GB to come"
    if free < needed:
        return fail(what, fix)
    big = needed >= HEADROOM_GB
    return warn(what, fix) if big and free < needed + COMFORT_GB else ok(what)


@rule(
    "weights",
    when="fail: files of a downloaded model are missing, are LFS pointers, or lead out of its folder; info: not here",
    why="the container sees that folder alone; vLLM finds a missing shard only after minutes of loading",
    source="model.safetensors.index.json; git-lfs pointer format; hub cache links",
)
def weights(facts: HostFacts, target: Target) -> Verdict | None:
    """Complete?"""
    wanted = [each for each in target.weights if each.repo]
    if not wanted:
        return None
    here = {each.model: each for each in facts.checkpoints}
    for each in wanted:
        found, fix = here.get(each.model), f"hf download {each.repo} --local-dir {each.folder}"
        if found is None:
            return info(f"{each.model} is not here: {each.size_gb:g} GB", fix)
        for wrong, why in (
            (found.missing, "missing"),
            (found.pointers, "not fetched"),
            (found.outside, "links out"),
        ):
            if wrong:
                return fail(f"{each.model}: {', '.join(wrong[:3])} {why} ({len(wrong)} of its files)", fix)
    return ok(", ".join(f"{each.model}: {here[each.model].size_bytes / 1e9:.1f} GB" for each in wanted))


@rule(
    "quantization",
    when="fail: quant_algo is not one of the release's, and the plan mounts no modelopt patch",
    why="vLLM 0.19.1 refuses the checkpoint while it reads the configuration",
    source="vllm 0.19.1 model_executor/layers/quantization/modelopt.py:107; vllm-project/vllm issue 45333",
)
def quantization(facts: HostFacts, target: Target) -> Verdict | None:
    """Can this engine load this checkpoint?"""
    known = [each for each in facts.checkpoints if each.quant_algo]
    if not known or not target.weights or target.patched_inside:
        return None
    for each in known:
        if each.quant_algo not in RELEASED_ALGORITHMS and not {"modelopt", "nvfp4-awq"} & set(target.patches):
            return fail(
                f"{each.model} is {each.quant_algo}, without the modelopt patch",
                "deckard-deploy patches check",
            )
    return ok(", ".join(sorted({str(each.quant_algo) for each in known})))


@rule(
    "port",
    when="fail: a trial bind fails",
    why="vLLM binds with SO_REUSEPORT: beside another server it would not fail, it would share the port",
    source="vllm 0.19.1 entrypoints/openai/api_server.py:497",
    stops_up=True,
)
def port(facts: HostFacts, target: Target) -> Verdict | None:
    """Free?"""
    found = facts.port
    if found is None or (found.address, found.port) != (target.address, target.port):
        return None
    where = f"{found.address}:{found.port}"
    if found.problem is None or target.running:
        return ok(f"{where} is {'this deployment' if target.running else 'free'}")
    return fail(found.problem, "--port N, or end what listens there: ss -ltnp")


@rule(
    "exposure",
    when="fail: an address that others reach, while the server asks for no key; warn: the host's network",
    why="whoever reaches the port uses the model; docker publishes past ufw",
    source="docs.docker.com/engine/network/packet-filtering-firewalls; vLLM's own key is bypassable: CVE-2026-48746",
)
def exposure(facts: HostFacts, target: Target) -> Verdict | None:
    """Who can reach it?"""
    if target.address is None:
        return None
    wall = {True: "; ufw is on", False: "; ufw is off", None: ""}[facts.services.firewall]
    if not ip_address(target.address).is_loopback and not target.keyed:
        return fail(
            f"{target.address} is reachable without a key{wall}",
            f"--expose {target.address}: through a gateway",
        )
    if target.keyed:
        return ok(f"{target.address}, through a gateway that asks for a key{wall}")
    if target.host_network:
        return warn(f"the container is on the host's network{wall}", "--set container.network=bridge")
    return ok(f"{target.address} only{wall}")


@rule(
    "token-file",
    when="warn: others on this host may read it",
    why="whoever reads it downloads gated models in your name",
    source="huggingface_hub/constants.py, HF_TOKEN_PATH",
)
def token_file(facts: HostFacts, target: Target) -> Verdict | None:
    """Private?"""
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
def caches(facts: HostFacts, target: Target) -> Verdict | None:
    """Usable, and not overgrown?"""
    if not facts.cache_folders:
        return None
    for each in facts.cache_folders:
        if not each.writable:
            return warn(f"{each.path} is not writable", f"sudo chown -R $USER {each.path}")
    for each in facts.cache_folders:
        if (each.size_bytes or 0) / 1e9 > CACHE_GB:
            return info(f"{each.path} holds {(each.size_bytes or 0) / 1e9:.0f} GB", f"rm -r {each.path}")
    owned = [each.path for each in facts.cache_folders if each.owner_uid == 0]
    if owned:
        return info(f"owned by root: {owned[0]}", f"to remove it: sudo rm -r {owned[0]}")
    return ok(f"{len(facts.cache_folders)} writable")


@rule(
    "restart-policy",
    when="warn: always or unless-stopped",
    why="a server that runs out of memory is then started for ever, on a Spark until the host freezes",
    source="vllm-project/vllm issue 46307; compose-spec, restart",
)
def restart_policy(facts: HostFacts, target: Target) -> Verdict | None:
    """Does it give up?"""
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
def batched_tokens(facts: HostFacts, target: Target) -> Verdict | None:
    """A step too large?"""
    if not target.unified or target.batched_tokens is None:
        return None
    if target.batched_tokens > SPARK_BATCHED_TOKENS:
        return warn(str(target.batched_tokens), "--set max-num-batched-tokens=8192")
    return ok(str(target.batched_tokens))


@rule(
    "nccl-gid",
    when="fail: NCCL_IB_GID_INDEX is empty; warn: it is set",
    why="the index differs from host to host and drifts; an empty one is read as 0",
    source="github tonyd2wild/DeepSeek-v4-Flash-Vision-Exp issue 38; MiaAI-Lab/DeepSeek-v4-Flash-DSpark pull 95",
)
def nccl_gid(facts: HostFacts, target: Target) -> Verdict | None:
    """Pinned?"""
    value = target.environment.get("NCCL_IB_GID_INDEX")
    if target.profile is None:
        return None
    if value is None:
        return ok("not pinned")
    return fail_if(value == "", f"NCCL_IB_GID_INDEX is {value!r}", "--set environment.NCCL_IB_GID_INDEX=null")


@rule(
    "proxy",
    when="warn: a proxy variable is set, and NO_PROXY does not name 127.0.0.1 or localhost",
    why="clients on this host would send their requests for the endpoint to the proxy",
    source="requests.readthedocs.io, Proxies; curl(1), NO_PROXY",
)
def proxy(facts: HostFacts, target: Target) -> Verdict | None:
    """Would local requests leave the host?"""
    if not facts.proxies:
        return ok("none")
    spared = {name.strip() for name in facts.no_proxy.split(",")}
    if spared & {"*", "127.0.0.1", "localhost"}:
        return ok(f"{', '.join(facts.proxies)}; not for this host")
    return warn(f"{', '.join(facts.proxies)} set", "export NO_PROXY=127.0.0.1,localhost")


@rule(
    "clock",
    when="warn: not synchronized; info: nobody could be asked",
    why="with a wrong clock TLS refuses downloads, and times in logs mislead",
    source="timedatectl show -p NTPSynchronized; /proc/uptime; /sys/class/dmi/id",
)
def clock(facts: HostFacts, target: Target) -> Verdict | None:
    """Right, and since when the host is up, on which firmware."""
    up = None if facts.uptime_s is None else f"up {facts.uptime_s / 86400:.1f} days"
    about = ", ".join(text for text in (up, facts.product, facts.bios and f"BIOS {facts.bios}") if text)
    synchronized = facts.services.clock_synchronized
    if synchronized is None:
        return info(f"not known; {about}" if about else "not known")
    if not synchronized:
        return warn(f"not synchronized; {about}", "sudo timedatectl set-ntp true")
    return ok(f"synchronized; {about}")
