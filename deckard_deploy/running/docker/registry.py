"""Facts about an image in a registry: its digest, and the bytes of its layers.

The daemon asks for the digest, with its mirrors and logins, because it is the one that will pull the image.
It does not report layers; docker's own command line reads them from the registry, with the same logins.
"""

import ipaddress
import json
from typing import Any

from docker.errors import APIError

from deckard_deploy.errors import EnvironmentUnfitError, NetworkError
from deckard_deploy.running.docker.client import DockerClient
from deckard_deploy.system.commands import last_output_line

_TIMEOUT_S = 60.0


def digest_of(client: DockerClient, reference: str) -> str:
    """Return the current digest of a tag, `sha256:…`.

    Raises NetworkError, and EnvironmentUnfitError without a daemon.
    """
    api = client.connect()
    api.timeout = int(_TIMEOUT_S)
    with client.translating_errors(), api:
        try:
            found = api.inspect_distribution(reference)  # type: ignore[no-untyped-call]
            return str(found["Descriptor"]["digest"])
        except APIError as error:  # NotFound is one too
            raise NetworkError(
                f"the registry does not say what {reference} is: {last_output_line(str(error.explanation))}",
                hint=f"docker pull {reference}",
            ) from error


def layer_bytes(client: DockerClient, reference: str, platform: str | None) -> int | None:
    """Return the bytes of an image's layers, as they are sent; None if the registry does not report them.

    platform: `os/architecture`; None for the daemon's own.
    Raises EnvironmentUnfitError.
    """
    manifest = _manifest(client, reference)
    if "manifests" in manifest:
        digest = _for_platform(manifest["manifests"], platform or _own_platform(client))
        if not digest:
            return None
        manifest = _manifest(client, f"{repository(reference)}@{digest}")
    try:
        return sum(int(layer["size"]) for layer in manifest["layers"])
    except (KeyError, TypeError, ValueError):
        return None


def _manifest(client: DockerClient, reference: str) -> dict[str, Any]:
    words = ["manifest", "inspect"]
    if _is_loopback(reference):  # the daemon uses HTTP for 127.0.0.0/8 only, too
        words.append("--insecure")
    try:
        done = client.command(*words, reference, timeout_s=_TIMEOUT_S, check=False)
        found = json.loads(done.stdout)
    except (EnvironmentUnfitError, ValueError):  # too slow, or not JSON
        return {}
    return found if isinstance(found, dict) else {}


def _for_platform(entries: Any, platform: str) -> str | None:  # noqa: ANN401  any JSON of the registry
    if not isinstance(entries, list):
        return None
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        found = entry.get("platform", {})
        if f"{found.get('os')}/{found.get('architecture')}" == platform:
            return str(entry.get("digest"))
    return None


def _own_platform(client: DockerClient) -> str:
    with client.translating_errors():
        version = client.api.version()
        return f"{version['Os']}/{version['Arch']}"


def repository(reference: str) -> str:
    """Return the reference without tag and digest. A colon after the last slash begins a tag."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _is_loopback(reference: str) -> bool:
    host = reference.partition("/")[0].partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
