"""What `docker info` says about the engine behind it: whose it is, and how it gives a container its user and GPUs."""

import json
from collections.abc import Mapping
from typing import Any, Literal

Info = Mapping[str, Any]
Product = Literal["podman", "docker from snap", "Docker Desktop"]


def parse(text: str) -> dict[str, Any]:
    """Return the mapping that `docker info --format '{{json .}}'` prints; an empty one for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def product(info: Info, *, endpoint: str = "", program: str = "") -> Product | None:
    """Return the product if it is not docker's own engine on this system.

    endpoint: the engine's address. program: the path of the docker command.
    """
    # podman pkg/api/handlers/compat/info.go: the licence and the storage folder are podman's own. The package
    # podman-docker installs `podman info` as `docker info`: it has `host` and `store`.
    root = str(info.get("DockerRootDir") or "")
    if info.get("ProductLicense") == "Apache-2.0" or root.endswith("/containers/storage"):
        return "podman"
    if "podman" in endpoint or (isinstance(info.get("host"), dict) and isinstance(info.get("store"), dict)):
        return "podman"
    system = str(info.get("OperatingSystem") or "")
    if "docker desktop" in system.lower() or "/.docker/desktop/" in endpoint:
        return "Docker Desktop"
    # canonical/docker-snap: its data is below /var/snap, its command is /snap/bin/docker.
    if root.startswith("/var/snap/") or program.startswith("/snap/"):
        return "docker from snap"
    return None


def is_rootless(info: Info) -> bool:
    """Return True if root in a container is the engine's own user (docs.docker.com/engine/security/rootless)."""
    options = info.get("SecurityOptions")
    return any("name=rootless" in str(option) for option in (options if isinstance(options, list) else ()))


def gpu_driver(info: Info) -> Literal["nvidia", "cdi"] | None:
    """Return the way by which the engine gives a container its GPUs; None if the answer does not say.

    An engine with CDI alone refuses `driver: nvidia` (dockerd 26.1.5: could not select device driver "nvidia").
    """
    runtimes = info.get("Runtimes")
    if not isinstance(runtimes, dict):
        return None
    if any("nvidia" in name for name in runtimes):
        return "nvidia"
    # Folders are listed from docker 25 on, also where nothing is in them.
    return "cdi" if info.get("CDISpecDirs") else None
