"""Facts of the container engine that the docker command talks to. Each probe returns fields of HostFacts."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deckard_deploy.doctor.facts import Docker, Image
from deckard_deploy.doctor.host import Host
from deckard_deploy.doctor.target import Target
from deckard_deploy.system import docker_info
from deckard_deploy.system.text import one_line

Fields = dict[str, Any]

DEFAULT_ROOT = "/var/lib/docker"
# containerd's own default, and the file with another `root` (github containerd/containerd docs/ops.md).
CONTAINERD_ROOT = "/var/lib/containerd"
_CONTAINERD_CONFIG = "/etc/containerd/config.toml"
# The driver type of the containerd image store in DriverStatus, docker's default since 29 (docker/cli issue 6645).
_SNAPSHOTTER = "io.containerd.snapshotter.v1"
MAX_NAMES = 32


def docker(host: Host, target: Target) -> Fields:  # noqa: ARG001  one signature for all
    """Read the engine and compose. Without an engine `docker info` prints JSON and ends with status 1."""
    with ThreadPoolExecutor(1) as pool:  # next to `docker info`, which takes the longest of all programs
        compose = pool.submit(_compose_version, host)
        answer = host.run("docker", "info", "--format", "{{json .}}")
    if not answer.installed:
        return {"docker": Docker(installed=False, problem=answer.problem)}
    info = _mapping(answer.out)
    if "ServerVersion" not in info and docker_info.product(info) == "podman":
        return {"docker": Docker(installed=True, product="podman", version=_shim_version(info))}
    version = _text(info.get("ServerVersion"))
    problem = answer.problem
    if problem is None and not version:
        problem = "docker info: not the JSON that was expected"
    endpoint = _endpoint(host, info)
    found = Docker(
        installed=True,
        problem=problem,
        version=version,
        architecture=_text(info.get("Architecture")),
        runtimes=_names(info.get("Runtimes")),
        compose=compose.result(),
        product=_product(host, info, endpoint),
        endpoint=_scheme(endpoint),
        named_by=_named_by(host, info),
        kernel=_text(info.get("KernelVersion")),
        security=_security(info),
        cdi=bool(_names(info.get("CDISpecDirs"))),
        cdi_devices=_cdi_devices(info),
        live_restore=_boolean(info.get("LiveRestoreEnabled")),
    )
    return {"docker": found}


def images_folder(host: Host) -> str:
    """Return the folder in which the engine unpacks images."""
    info = _mapping(host.run("docker", "info", "--format", "{{json .}}").out)
    root = _absolute(info.get("DockerRootDir")) or _shim_root(info) or DEFAULT_ROOT
    status = info.get("DriverStatus")
    if not isinstance(status, list) or ["driver-type", _SNAPSHOTTER] not in status:
        return root
    if _starts_containerd_itself(info):
        return f"{root}/containerd/daemon"  # moby libcontainerd/supervisor/remote_daemon.go
    configured = re.search(r'(?m)^root\s*=\s*["\']([^"\'\n]+)', host.read(_CONTAINERD_CONFIG) or "")
    return _absolute(configured[1] if configured else None) or CONTAINERD_ROOT


def image(host: Host, target: Target) -> Fields:
    """Read the plan's image, if it is on this host."""
    if not target.image:
        return {}
    answer = host.run("docker", "image", "inspect", "--format", "{{json .}}", target.image)
    found = _mapping(answer.out)
    if answer.problem or not found:
        return {}
    image = Image(
        reference=target.image,
        architecture=_text(found.get("Architecture")),
        cuda=_cuda_version(found.get("Config")),
    )
    return {"image": image}


def _shim_version(info: Fields) -> str | None:
    version = info.get("version")
    return _text(version.get("Version")) if isinstance(version, dict) else None


def _shim_root(info: Fields) -> str | None:
    store = info.get("store")
    return _absolute(store.get("graphRoot")) if isinstance(store, dict) else None


def _product(host: Host, info: Fields, endpoint: str | None) -> docker_info.Product | None:
    """Return the product if it is not docker's own engine on this system."""
    program = shutil.which("docker", path=host.environment.get("PATH", "")) or ""
    if _context(info).startswith("desktop-") and not info.get("ServerVersion"):
        return "Docker Desktop"
    return docker_info.product(info, endpoint=endpoint or "", program=program)


def _named_by(host: Host, info: Fields) -> str | None:
    """Return the setting that selects another engine than the default one."""
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT"):  # the order of docker's command line
        if host.environment.get(variable):
            return variable
    context = _context(info)
    return "docker context use" if context not in ("", "default") else None


def _context(info: Fields) -> str:
    client = info.get("ClientInfo")
    return str(client.get("Context") or "") if isinstance(client, dict) else ""


def _endpoint(host: Host, info: Fields) -> str | None:
    """Return the address of the engine, from DOCKER_HOST or from the file of the context; None for the default."""
    named = host.environment.get("DOCKER_HOST")
    if named:
        return named
    context = _context(info)
    home = host.environment.get("DOCKER_CONFIG") or f"{host.environment.get('HOME', '')}/.docker"
    for path in sorted(Path(home).glob("contexts/meta/*/meta.json"))[:MAX_NAMES]:
        stored = _mapping(_read(path))
        if context and stored.get("Name") == context:
            found = re.search(r'"Host":\s*"([^"]+)"', json.dumps(stored.get("Endpoints")))
            return found[1] if found else None
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _scheme(endpoint: str | None) -> str | None:
    """Return how the engine is reached, without the name of a host or user."""
    if endpoint is None:
        return None
    try:
        scheme = urlsplit(endpoint).scheme
    except ValueError:
        return "unknown"
    return scheme if re.fullmatch("[a-z]{2,10}", scheme) else "unknown"


def _security(info: Fields) -> tuple[str, ...]:
    """Return the names of the security options: rootless, selinux, userns, apparmor, seccomp."""
    options = info.get("SecurityOptions")
    found = []
    for option in options if isinstance(options, list) else ():
        name = re.match(r"name=([a-z]{1,20})", str(option))
        if name:
            found.append(name[1])
    return tuple(found[:MAX_NAMES])


def _cdi_devices(info: Fields) -> tuple[str, ...]:
    """Return the CDI devices of NVIDIA that the engine itself has found (docker 28.3 and later)."""
    devices = info.get("DiscoveredDevices")
    found = []
    for device in devices if isinstance(devices, list) else ():
        name = str(device.get("ID", "")) if isinstance(device, dict) else ""
        if name.startswith("nvidia.com/"):
            found.append(one_line(name, 80))
    return tuple(found[:MAX_NAMES])


def _starts_containerd_itself(info: Fields) -> bool:
    """Return True if the engine runs a containerd of its own, as it does rootless or from static binaries."""
    containerd = info.get("Containerd")
    address = str(containerd.get("Address") or "") if isinstance(containerd, dict) else ""
    return "/docker/containerd/" in address or (not address and "rootless" in _security(info))


def _compose_version(host: Host) -> str | None:
    answer = host.run("docker", "compose", "version", "--short")
    found = re.fullmatch(r"v?(\d+\.\d+.*)", answer.out.strip(), re.ASCII)
    return one_line(found[1], 40) if found else None


def _cuda_version(config: object) -> str | None:
    """Return CUDA_VERSION of an image's configuration."""
    environment = config.get("Env") if isinstance(config, dict) else None
    if not isinstance(environment, list):
        return None
    for entry in map(str, environment):
        if entry.startswith("CUDA_VERSION="):
            value = entry.partition("=")[2]
            return value if re.fullmatch(r"\d{1,3}\.\d{1,3}(\.\d{1,6})?", value, re.ASCII) else None
    return None


def _names(value: object) -> tuple[str, ...]:
    """Return the sorted names in a list, or the keys of a mapping."""
    if not isinstance(value, dict | list):
        return ()
    return tuple(sorted(one_line(str(name), 80) for name in list(value)[:MAX_NAMES]))


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _absolute(value: object) -> str | None:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        return None
    return value.rstrip("/") or "/"


def _text(value: object) -> str | None:
    return one_line(value, 80) if isinstance(value, str) and value else None


def _mapping(text: str) -> Fields:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
