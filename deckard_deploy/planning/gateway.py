"""The reverse proxy in front of the engine: whether a plan has one, and its settings.

nginx alone listens for clients. The engine is on a network that only nginx shares (docker), or listens on a
socket in a private folder (process). vLLM 0.19.1's own `--api-key` is no boundary: one Host header bypasses
it (CVE-2026-48746).
"""

from ipaddress import ip_address
from pathlib import PurePosixPath

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.plan import Gateway

# The unprivileged image that the nginx developers maintain (github nginxinc/docker-nginx-unprivileged: user
# 101, port 8080, amd64 and arm64); public Dockerfiles use this tag. `deckard-deploy lock` resolves tags on
# your machine.
IMAGE = "nginxinc/nginx-unprivileged:1.28-alpine"
IMAGE_USER = "101:101"  # stable/alpine-slim/Dockerfile there: ARG UID=101, ARG GID=101
ROOT = "0:0"
PORT = 8080  # inside the container; same file: EXPOSE 8080
FOLDER = "/etc/deckard"  # inside the container
SOCKET = "vllm.sock"  # in the deployment's folder, the working directory of the engine and nginx
# In containers of replicas: a folder for the socket of each, and for the front all of them.
REPLICAS_FOLDER = "/run/deckard/replicas"


def plan_gateway(
    resolved: Resolved,
    *,
    folder: PurePosixPath,
    nginx: PurePosixPath | None,
    owner: str | None,
    rootless: bool = False,
) -> Gateway | None:
    """Return the gateway; None for a compatibility line, on the host's network, or without nginx.

    folder: the host's folder of keys and certificate. nginx: the program, for the process runtime; None: not
    installed, or not used. owner: `uid:gid` of the folder's owner. rootless: root in the container is that owner.
    Raises BadInputError when the endpoint is exposed, or TLS or nginx is requested, without a gateway.
    """
    publish = resolved.publish
    missing = _missing_reason(resolved, nginx)
    if missing:
        if resolved.gateway == "nginx":
            raise BadInputError(f"gateway is nginx: {missing}")
        _require_no_gateway_options(resolved, missing)
        return None
    in_container = resolved.engine.runtime == "docker"
    image = program = user = None
    if in_container:
        image = resolved.gateway_image or IMAGE
        # nginx needs no root in the container: files of root are given to the image's own user.
        user = IMAGE_USER if owner in (None, ROOT) else owner
        if rootless:
            user = ROOT
    else:
        program = str(nginx)
    tls = publish.tls
    if tls is None:
        tls = bool(publish.expose or publish.certificate)
    return Gateway(
        image=image,
        program=program,
        user=user,
        folder=str(folder),
        exposed=publish.expose is not None,
        tls=tls,
        certificate=publish.certificate,
        certificate_key=publish.certificate_key,
    )


def is_loopback(address: str) -> bool:
    """Return True if only this machine reaches the address."""
    return ip_address(address).is_loopback


def _missing_reason(resolved: Resolved, nginx: PurePosixPath | None) -> str:
    """Return the reason why there is no gateway, or "" where there is one."""
    if resolved.compatibility:
        return f"--compat {resolved.compatibility.name} has none"
    if resolved.engine.runtime == "docker":
        if resolved.container.network == "host":
            return "the container is on the host's network"
        return ""
    if resolved.gateway == "off":
        return "gateway is off"
    if nginx is None:
        return "nginx is not installed; on Debian: sudo apt-get install nginx-light"
    return ""


def _require_no_gateway_options(resolved: Resolved, missing: str) -> None:
    publish = resolved.publish
    if publish.expose:
        raise BadInputError(f"--expose {publish.expose}: there is no gateway to ask for keys: {missing}")
    if publish.tls or publish.certificate:
        option = "publish.tls" if publish.tls else "publish.certificate"
        raise BadInputError(f"{option} is set, and there is no gateway to speak TLS: {missing}")
