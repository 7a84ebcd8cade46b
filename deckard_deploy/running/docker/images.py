"""Local images, and the pull of others with its progress."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from deckard_deploy.errors import EnvironmentUnfitError, NetworkError
from deckard_deploy.failures.matching import find_in_message
from deckard_deploy.running.docker import registry
from deckard_deploy.running.docker.client import DockerClient
from deckard_deploy.running.runtime import DiskNeed
from deckard_deploy.system.unknown import Unknown

# An image's layers unpacked, over their size as they are sent. gzip made 1,008,806,376 bytes of 2,100,705,280 of torch
# and vLLM 0.19.1 (CPU build, `tar -c torch vllm | gzip | wc -c`). Other images differ, so this is an estimate.
UNPACKED = 2
_STALL_S = 300  # without an answer of the registry


def image_id(client: DockerClient, reference: str) -> str | None:
    """Return the id of a local image, `sha256:…`; None if it is not here. Raises EnvironmentUnfitError."""
    try:
        with client.translating_errors():
            found: dict[str, Any] = client.api.inspect_image(reference)  # type: ignore[no-untyped-call]
            return str(found["Id"])
    except NotFound:
        return None


def digests(client: DockerClient, reference: str) -> list[str]:
    """Return the digests of a local image in its repository.

    It has one, unless it was pushed or pulled again.
    """
    try:
        with client.translating_errors():
            known = client.api.inspect_image(reference)["RepoDigests"]  # type: ignore[no-untyped-call]
    except NotFound:
        return []
    prefix = f"{registry.repository(reference)}@"
    found = []
    for digest in known or ():
        if str(digest).startswith(prefix):
            found.append(str(digest).removeprefix(prefix))
    return found


def root_folder(client: DockerClient) -> Path:
    """Return the folder in which the daemon stores images.

    If docker runs in a virtual machine, the folder is on that machine's disk.
    """
    with client.translating_errors():
        return Path(client.api.info()["DockerRootDir"])


def space_needed(client: DockerClient, image: str, platform: str | None) -> DiskNeed | Unknown:
    """Return the disk space that an image will take in docker's folder."""
    size = registry.layer_bytes(client, image, platform)
    root = root_folder(client)
    if size is None or not root.exists():
        return Unknown("how large it is, or where docker keeps it, is not known")
    return DiskNeed("the image", root, UNPACKED * size)


def pull(
    client: DockerClient, reference: str, *, platform: str | None, on_bytes: Callable[[int, int], None]
) -> str:
    """Pull an image and return its id.

    on_bytes: called as layers arrive, with the bytes received and the bytes of all layers that are known so
    far. Raises NetworkError (registry, no such image), EnvironmentUnfitError (disk, daemon).
    """
    layers: dict[str, tuple[int, int]] = {}
    repository, _, digest = reference.partition("@")
    with client.translating_errors(), client.connect() as api:
        api.timeout = _STALL_S
        try:
            for event in api.pull(
                repository, tag=digest or None, platform=platform, stream=True, decode=True
            ):
                _apply(event, layers, reference)
                received = sum(done for done, _ in layers.values())
                on_bytes(received, sum(total for _, total in layers.values()))
        except APIError as error:
            raise _refused(reference, str(error.explanation)) from error
    found = image_id(client, reference)
    if found is None:
        raise NetworkError(f"{reference} was pulled, but is not there", hint=f"docker pull {reference}")
    return found


def _apply(event: dict[str, Any], layers: dict[str, tuple[int, int]], reference: str) -> None:
    """Update `layers` (id -> bytes received, bytes in all) by one event of a pull."""
    if "error" in event:
        raise _refused(reference, str(event["error"]))
    detail = event.get("progressDetail") or {}
    layer = str(event.get("id", ""))
    status = event.get("status")
    if status == "Downloading" and "total" in detail:
        layers[layer] = (int(detail["current"]), int(detail["total"]))
    elif status in ("Download complete", "Pull complete") and layer in layers:
        _, total = layers[layer]
        layers[layer] = (total, total)


def _refused(reference: str, message: str) -> EnvironmentUnfitError | NetworkError:
    if "no space left" in message:
        return EnvironmentUnfitError(f"no space left for {reference}", hint="docker system df")
    found = find_in_message(message)
    hint = f"docker pull {reference}"
    if found is not None:
        hint = f"{found.cause}; {found.fix}"
    return NetworkError(f"{reference} cannot be pulled: {message}", hint=hint)
