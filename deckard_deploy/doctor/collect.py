"""Read all facts that the rules use, in parallel, changing nothing."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from deckard_deploy.doctor import docker_engine, programs
from deckard_deploy.doctor.facts import Checkpoint, Disk, Folder, HostFacts, HostMemory, Port, TokenFile
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.target import Target
from deckard_deploy.system.meminfo import parse_meminfo
from deckard_deploy.system.text import one_line

Fields = dict[str, Any]
PortProblem = Callable[[str, int], str | None]
MAX_FILES = 20_000  # of a cache folder, to add up its size
MAX_JSON_BYTES = 64 << 20
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
MAX_DEVICES = 1000  # on the PCI bus
_LFS_POINTER = b"version https://git-lfs"  # a file that git-lfs did not fetch
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def collect(target: Target, host: Host, *, port_problem: PortProblem, quick: bool = False) -> HostFacts:
    """Return the facts of this host. `quick` leaves out facts that no rule that stops `up` uses.

    `port_problem(address, port)` returns the reason why the port cannot be bound, None when it can.
    """

    def port(host: Host, target: Target) -> Fields:  # noqa: ARG001  one signature for all
        if target.address is None or target.port is None:
            return {}
        problem = port_problem(target.address, target.port)
        return {"port": Port(address=target.address, port=target.port, problem=problem)}

    probes = [
        programs.gpus,
        programs.gpu_processes,
        docker_engine.docker,
        docker_engine.image,
        machine,
        memory,
        port,
    ]
    probes += [disks, checkpoints]  # the disk rule does not count weights that are here
    if not quick:
        probes += [process_parts, programs.cuda, programs.kernel_log, programs.services, caches, secrets]

    def run(probe: Callable[[Host, Target], Fields]) -> Fields:
        try:
            return probe(host, target)
        except OSError:
            return {}  # a file of another user, or deleted meanwhile: the fact is unknown

    facts: Fields = {}
    with ThreadPoolExecutor(len(probes)) as pool:
        for fields in pool.map(run, probes):
            facts |= fields
    return HostFacts(**facts)


def machine(host: Host, target: Target) -> Fields:  # noqa: ARG001  one signature for all
    """Read architecture, kernel, product, firmware, uptime and the names of CDI specifications."""
    return {
        "architecture": _line(host.run("uname", "-m").out),
        "kernel": _line(host.read("/proc/sys/kernel/osrelease")),
        "product": _line(host.read("/sys/class/dmi/id/product_name")),
        "bios": _line(host.read("/sys/class/dmi/id/bios_version")),
        "uptime_s": _uptime_s(host),
        "cdi_specs": tuple(_cdi_specs(host)),
        "nvidia_devices": _nvidia_devices(host),
        "driver_module": _driver_module(host),
        "nouveau": host.path("/sys/module/nouveau").is_dir(),
    }


def _nvidia_devices(host: Host) -> int | None:
    """Count NVIDIA's GPUs (display controllers, PCI class 03) on the bus; None if the bus cannot be read."""
    folder = host.path("/sys/bus/pci/devices")
    if not folder.is_dir():
        return None
    count = 0
    for device in sorted(folder.iterdir())[:MAX_DEVICES]:
        vendor = host.read(f"/sys/bus/pci/devices/{device.name}/vendor") or ""
        kind = host.read(f"/sys/bus/pci/devices/{device.name}/class") or ""
        count += vendor.strip() == "0x10de" and kind.startswith("0x03")
    return count


def process_parts(host: Host, target: Target) -> Fields:
    """Read what a plain process needs of this host: shared libraries, and nginx for the gateway."""
    if target.needs_docker is not False:
        return {}
    present = []
    for name in target.libraries:
        if any(_holds(host.path(folder), name) for folder in _LIBRARY_FOLDERS):
            present.append(name)
    path = f"{host.environment.get('PATH', '')}:/usr/sbin:/sbin"
    return {"libraries": tuple(present), "nginx": shutil.which("nginx", path=path) is not None}


def _holds(folder: Path, library: str) -> bool:
    """Return True for a library in the folder, or in one of its folders of an architecture."""
    return (folder / library).exists() or any(folder.glob(f"*-linux-gnu*/{library}"))


def _driver_module(host: Host) -> str | None:
    version = (host.read("/sys/module/nvidia/version") or "").strip()
    return version if re.fullmatch(r"\d{1,6}(\.\d{1,6})*", version, re.ASCII) else None


def _line(text: str | None) -> str | None:
    return one_line(text or "", 80).strip() or None


def _uptime_s(host: Host) -> int | None:
    seconds = (host.read("/proc/uptime") or "").partition(".")[0]
    if not seconds.isdecimal() or len(seconds) >= 12:
        return None
    return int(seconds)


def _cdi_specs(host: Host) -> Iterator[str]:
    """Yield NVIDIA's specifications in the folders that CDI names (cncf CDI: /etc/cdi and /var/run/cdi)."""
    for folder in ("/etc/cdi", "/var/run/cdi"):
        for path in sorted(host.path(folder).glob("*nvidia*")):
            if path.suffix in (".yaml", ".yml", ".json"):
                yield path.name


def memory(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Read the kernel's memory figures. Unknown without the lines that every kernel since 3.14 has."""
    sizes = parse_meminfo(host.read("/proc/meminfo") or "")
    kib = {name: size // 1024 for name, size in sizes.items()}
    if not {"MemTotal", "MemFree", "MemAvailable"} <= kib.keys():
        return {}
    found = HostMemory(
        total_kib=kib["MemTotal"],
        free_kib=kib["MemFree"],
        available_kib=kib["MemAvailable"],
        swap_total_kib=kib.get("SwapTotal", 0),
        swap_free_kib=kib.get("SwapFree", 0),
        min_free_kib=_min_free_kib(host),
        pressure_full_avg10=_pressure(host),
        cma_total_kib=kib.get("CmaTotal"),
        cma_free_kib=kib.get("CmaFree"),
    )
    return {"memory": found}


def _min_free_kib(host: Host) -> int | None:
    text = (host.read("/proc/sys/vm/min_free_kbytes") or "").strip()
    return int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None


def _pressure(host: Host) -> float | None:
    text = host.read("/proc/pressure/memory") or ""
    found = re.search(r"(?m)^full avg10=(\d{1,3}\.\d+)", text, re.ASCII)
    return float(found[1]) if found else None


def disks(host: Host, target: Target) -> Fields:
    """Read the free space for weights, caches and, where docker is used, images."""
    found = [_disk("weights", target.folders.weights)]
    if target.folders.caches:
        found.append(_disk("caches", target.folders.caches[0]))
    if target.needs_docker is not False:
        images = host.path(docker_engine.images_folder(host))
        found.append(_disk("images", images))
    return {"disks": tuple(found)}


def _disk(purpose: Literal["weights", "caches", "images"], folder: Path) -> Disk:
    existing = Path("/")
    for path in (folder, *folder.parents):
        if path.is_dir():
            existing = path
            break
    status = os.statvfs(existing)
    return Disk(
        purpose=purpose,
        path=str(existing),
        device=existing.stat().st_dev,
        size_bytes=status.f_blocks * status.f_frsize,
        free_bytes=status.f_bavail * status.f_frsize,
    )


def caches(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Read the cache folders that exist."""
    return {"cache_folders": tuple(_folder(path) for path in target.folders.caches if path.is_dir())}


def _folder(path: Path) -> Folder:
    sizes = list(itertools.islice(_file_sizes(path), MAX_FILES + 1))
    return Folder(
        path=str(path),
        writable=os.access(path, os.W_OK),
        owner_uid=path.stat().st_uid,
        size_bytes=sum(sizes) if len(sizes) <= MAX_FILES else None,
    )


def _file_sizes(folder: Path) -> Iterator[int]:
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
            continue  # a folder of another user, or deleted meanwhile


def checkpoints(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Read the plan's models that are on this host."""
    found = []
    for weights in target.weights:
        if (weights.folder / "config.json").is_file():
            found.append(_checkpoint(weights.model, weights.folder))
    return {"checkpoints": tuple(found)}


def _checkpoint(model: str, folder: Path) -> Checkpoint:
    size_bytes = 0
    pointers = []
    outside = []
    # Path.resolve raises RuntimeError for links in a circle before Python 3.13.
    real_folder = os.path.realpath(folder)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            size_bytes += path.stat().st_size
        elif not path.is_symlink():
            continue
        if _is_lfs_pointer(path):
            pointers.append(path.name)
        if not Path(os.path.realpath(path)).is_relative_to(real_folder):
            outside.append(path.name)
    return Checkpoint(
        model=model,
        folder=str(folder),
        size_bytes=size_bytes,
        quant_algo=_quant_algo(folder),
        missing=tuple(name for name in _shard_names(folder) if not _has_content(folder / name)),
        pointers=tuple(pointers),
        outside=tuple(outside),
    )


def _shard_names(folder: Path) -> list[str]:
    weight_map = _json(folder / "model.safetensors.index.json").get("weight_map")
    if not isinstance(weight_map, dict):
        return ["model.safetensors"]
    return sorted({str(name) for name in weight_map.values()})


def _quant_algo(folder: Path) -> str | None:
    quantization = _json(folder / "hf_quant_config.json").get("quantization")
    if not isinstance(quantization, dict):
        return None
    algorithm = quantization.get("quant_algo")
    return algorithm if isinstance(algorithm, str) else None


def _json(path: Path) -> Fields:
    """Return the object in a file; empty when the file is not one, or too large."""
    try:
        if path.stat().st_size >= MAX_JSON_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _is_lfs_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def secrets(host: Host, target: Target) -> Fields:  # noqa: ARG001  same
    """Read the mode of the hub's token file, and the names of the proxy variables that are set; no values."""
    home = Path(host.environment.get("HOME", "/"))
    hub = Path(host.environment.get("HF_HOME", home / ".cache/huggingface"))
    token = Path(host.environment.get("HF_TOKEN_PATH", hub / "token"))  # huggingface_hub/constants.py
    upper = host.environment.get("NO_PROXY", host.environment.get("no_proxy", ""))
    lower = host.environment.get("no_proxy", upper)
    fields: Fields = {
        "proxies": tuple(name for name in _PROXIES if host.environment.get(name)),
        "no_proxy": lower[:200],
        "no_proxy_upper": upper[:200] if upper != lower else None,
    }
    if token.is_file():
        fields["token_file"] = TokenFile(path=str(token), mode=token.stat().st_mode & 0o777)
    return fields
