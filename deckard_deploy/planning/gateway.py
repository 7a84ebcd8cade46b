"""The reverse proxy in front of the engine: whether there is one, and what it is told.

nginx alone listens for clients. The engine is on a network that only nginx shares (docker), or listens on a socket in a
folder of ours (process): vLLM 0.19.1's own `--api-key` is passed by with one Host header (CVE-2026-48746), so it is no
boundary.
"""

from ipaddress import ip_address
from pathlib import PurePosixPath

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.plan import Gateway

# The project of that name, which the nginx developers keep (github nginxinc/docker-nginx-unprivileged: user 101, port
# 8080, amd64 and arm64); tag in use in public Dockerfiles. `deckard-deploy lock` resolves tags on your machine.
IMAGE = "nginxinc/nginx-unprivileged:1.28-alpine"
IMAGE_USER = "101:101"  # stable/alpine-slim/Dockerfile there: ARG UID=101, ARG GID=101
PORT = 8080  # inside the container; same file: EXPOSE 8080
FOLDER = "/etc/deckard"  # inside the container
SOCKET = "vllm.sock"  # in the deployment's folder, in which the engine and nginx both run


def plan_gateway(
    resolved: Resolved, *, folder: PurePosixPath, nginx: PurePosixPath | None, owner: str | None
) -> Gateway | None:
    """What stands in front of the engine; None for somebody's own launch line, on the host's network, without nginx.

    folder: the host's folder of keys and certificate. nginx: the program, for the process runtime; None: not installed.
    owner: `uid:gid` of whose the folder is. Raises BadInputError when other machines are let in, or TLS is asked for,
    without a gateway.
    """
    publish = resolved.publish
    missing = _why_not(resolved, nginx)
    if missing and publish.expose:
        raise BadInputError(f"--expose {publish.expose}: there is no gateway to ask for keys: {missing}")
    if missing and (publish.tls or publish.certificate):
        asked = "publish.tls" if publish.tls else "publish.certificate"
        raise BadInputError(f"{asked} is set, and there is no gateway to speak TLS: {missing}")
    if missing:
        return None
    in_container = resolved.engine.runtime == "docker"
    # Root's files are handed to the image's own user: nobody needs to be root in there.
    user = IMAGE_USER if owner in (None, "0:0") else owner
    return Gateway(
        image=(resolved.gateway_image or IMAGE) if in_container else None,
        program=None if in_container else str(nginx),
        user=user if in_container else None,
        folder=str(folder),
        exposed=publish.expose is not None,
        tls=publish.tls if publish.tls is not None else bool(publish.expose or publish.certificate),
        certificate=publish.certificate,
        certificate_key=publish.certificate_key,
    )


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches it."""
    return ip_address(address).is_loopback


def _why_not(resolved: Resolved, nginx: PurePosixPath | None) -> str:
    if resolved.compatibility:
        return f"--compat {resolved.compatibility.name} has none"
    if resolved.engine.runtime == "docker":
        return "the container is on the host's network" if resolved.container.network == "host" else ""
    return "" if nginx else "nginx is not installed; on Debian: sudo apt-get install nginx-light"
