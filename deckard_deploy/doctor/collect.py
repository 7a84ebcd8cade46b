"""Read everything that the rules ask for, all at once, changing nothing."""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deckard_deploy.doctor import programs
from deckard_deploy.doctor.facts import Checkpoint, Disk, Folder, HostFacts, Memory, Port, TokenFile
from deckard_deploy.doctor.host import Host, one_line
from deckard_deploy.doctor.target import Target

Fields = dict[str, Any]
PortProblem = Callable[[str, int], str | None]
MAX_FILES = 20_000  # of a cache folder, to add up its size
DEFAULT_DOCKER_ROOT = "/var/lib/docker"
_POINTER = b"version https://git-lfs"  # a file that git-lfs did not fetch
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def collect(target: Target, host: Host, *, port_problem: PortProblem, quick: bool = False) -> HostFacts:
    """The facts of this host. `quick` leaves out what no rule that can stop `up` asks for.

    `port_problem(address, port)`: why the port cannot be bound, None when it can.
    """

    def port(host: Host, target: Target) -> Fields:  # noqa: ARG001  one signature for all
        if target.address is None or target.port is None:
            return {}
        problem = port_problem(target.address, target.port)
        return {"port": Port(address=target.address, port=target.port, problem=problem)}

    probes = [programs.gpus, programs.gpu_processes, programs.docker, programs.image, machine, memory, port]
    probes += [disks, checkpoints]  # what is here is not downloaded again
    if not quick:
        probes += [programs.cuda, programs.kernel_log, programs.services, caches, secrets]

    def ask(probe: Callable[[Host, Target], Fields]) -> Fields:
        try:
            return probe(host, target)
        except OSError:
            return {}  # another user's, or gone meanwhile: unknown, as everything that is not set

    with ThreadPoolExecutor(len(probes)) as pool:
        return HostFacts(**{name: fact for found in pool.map(ask, probes) for name, fact in found.items()})


def machine(host: Host, target: Target) -> Fields:  # noqa: ARG001  one signature for all
    """Architecture, kernel, product, firmware, uptime, CDI specifications (cncf CDI: /etc/cdi and /var/run/cdi)."""
    specs = [
        path for folder in ("/etc/cdi", "/var/run/cdi") for path in sorted(host.path(folder).glob("*nvidia*"))
    ]
    uptime = (host.read("/proc/uptime") or "").partition(".")[0]
    return {
        "architecture": _line(host.ask("uname", "-m").out),
        "kernel": _line(host.read("/proc/sys/kernel/osrelease")),
        "product": _line(host.read("/sys/class/dmi/id/product_name")),
        "bios": _line(host.read("/sys/class/dmi/id/bios_version")),
        "uptime_s": int(uptime) if uptime.isdecimal() and len(uptime) < 12 else None,
        "cdi_specs": tuple(path.name for path in specs if path.suffix in (".yaml", ".json")),
    }


def _line(text: str | None) -> str | None:
    return one_line(text or "", 80).strip() or None


def memory(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """The kernel's account of memory; nothing when /proc/meminfo lacks what every kernel since 3.14 says."""
    pairs = re.findall(r"(?m)^(\w+):\s+(\d{1,15}) kB$", host.read("/proc/meminfo") or "", re.ASCII)
    kib = {name: int(value) for name, value in pairs}
    if not {"MemTotal", "MemFree", "MemAvailable"} <= kib.keys():
        return {}
    least = (host.read("/proc/sys/vm/min_free_kbytes") or "").strip()
    pressure = re.search(
        r"(?m)^full avg10=(\d{1,3}\.\d+)", host.read("/proc/pressure/memory") or "", re.ASCII
    )
    return {
        "memory": Memory(
            total_kib=kib["MemTotal"],
            free_kib=kib["MemFree"],
            available_kib=kib["MemAvailable"],
            swap_total_kib=kib.get("SwapTotal", 0),
            swap_free_kib=kib.get("SwapFree", 0),
            min_free_kib=int(least) if re.fullmatch(r"\d{1,12}", least, re.ASCII) else None,
            pressure_full_avg10=float(pressure[1]) if pressure else None,
        )
    }


def disks(host: Host, target: Target) -> Fields:
    """Room for weights, caches and, where docker is used, images."""
    places = [
        ("weights", target.folders.weights),
        *(("caches", folder) for folder in target.folders.caches[:1]),
    ]
    if target.needs_docker is not False:
        places.append(("images", host.path(programs.docker_root(host) or DEFAULT_DOCKER_ROOT)))
    found = []
    for purpose, folder in places:
        there = next((each for each in (folder, *folder.parents) if each.is_dir()), Path("/"))
        status, device = os.statvfs(there), there.stat().st_dev
        sizes = {
            "size_bytes": status.f_blocks * status.f_frsize,
            "free_bytes": status.f_bavail * status.f_frsize,
        }
        found.append(Disk.model_validate({"purpose": purpose, "path": str(there), "device": device, **sizes}))
    return {"disks": tuple(found)}


def caches(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """The cache folders that are there."""
    return {"cache_folders": tuple(_folder(path) for path in target.folders.caches if path.is_dir())}


def _folder(path: Path) -> Folder:
    sizes = list(itertools.islice(_sizes(path), MAX_FILES + 1))
    return Folder(
        path=str(path),
        writable=os.access(path, os.W_OK),
        owner_uid=path.stat().st_uid,
        size_bytes=sum(sizes) if len(sizes) <= MAX_FILES else None,
    )


def _sizes(folder: Path) -> Iterator[int]:
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue  # another user's, or gone meanwhile


def checkpoints(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """The plan's models that are here."""
    here = [each for each in target.weights if (each.folder / "config.json").is_file()]
    return {"checkpoints": tuple(_checkpoint(each.model, each.folder) for each in here)}


def _checkpoint(model: str, folder: Path) -> Checkpoint:
    index = _json(folder / "model.safetensors.index.json")
    weight_map = index.get("weight_map")
    shards = (
        {str(name) for name in weight_map.values()} if isinstance(weight_map, dict) else {"model.safetensors"}
    )
    quantization = _json(folder / "hf_quant_config.json").get("quantization")
    algorithm = quantization.get("quant_algo") if isinstance(quantization, dict) else None
    files = [path for path in sorted(folder.iterdir()) if path.is_file() or path.is_symlink()]
    # Path.resolve raises RuntimeError for links in a circle before Python 3.13.
    real = os.path.realpath(folder)
    return Checkpoint(
        model=model,
        folder=str(folder),
        size_bytes=sum(path.stat().st_size for path in files if path.is_file()),
        quant_algo=algorithm if isinstance(algorithm, str) else None,
        missing=tuple(sorted(name for name in shards if not _has_content(folder / name))),
        pointers=tuple(path.name for path in files if _begins_as_pointer(path)),
        outside=tuple(path.name for path in files if not Path(os.path.realpath(path)).is_relative_to(real)),
    )


def _json(path: Path) -> Fields:
    try:
        value = json.loads(path.read_bytes()) if path.stat().st_size < (64 << 20) else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _begins_as_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def secrets(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Who may read the hub's token, and which proxy variables are set; no values."""
    home = Path(host.environment.get("HOME", "/"))
    hub = Path(host.environment.get("HF_HOME", home / ".cache/huggingface"))
    token = Path(host.environment.get("HF_TOKEN_PATH", hub / "token"))  # huggingface_hub/constants.py
    fields: Fields = {
        "proxies": tuple(name for name in _PROXIES if host.environment.get(name)),
        "no_proxy": host.environment.get("no_proxy", host.environment.get("NO_PROXY", ""))[:200],
    }
    if token.is_file():
        fields["token_file"] = TokenFile(path=str(token), mode=token.stat().st_mode & 0o777)
    return fields
