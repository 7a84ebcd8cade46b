"""What a registry says of an image that is not here yet: its digest, and how many bytes its layers are.

The digest is asked for by the daemon, which will pull it, with its mirrors and logins. The daemon does not tell layers;
those docker's own command line reads from the registry, with the same logins.
"""

import ipaddress
import json
from typing import Any

from deckard_deploy.errors import EnvironmentUnfitError, NetworkError
from deckard_deploy.running.docker.client import DockerEngine
from deckard_deploy.system.commands import last_output_line

_TIMEOUT_S = 60.0


def digest_of(engine: DockerEngine, reference: str) -> str:
    """The digest that a tag has now, `sha256:…`. Raises NetworkError, and EnvironmentUnfitError without a daemon."""
    from docker.errors import APIError  # noqa: PLC0415  half a second

    api = engine.connect()
    api.timeout = int(_TIMEOUT_S)
    with engine.asking(), api:
        try:
            found = api.inspect_distribution(reference)  # type: ignore[no-untyped-call]
            return str(found["Descriptor"]["digest"])
        except APIError as error:  # NotFound is one too
            raise NetworkError(
                f"the registry does not say what {reference} is: {last_output_line(str(error.explanation))}",
                hint=f"docker pull {reference}",
            ) from error


def layer_bytes(engine: DockerEngine, reference: str, platform: str | None) -> int | None:
    """The layers of one platform's image as they are sent, together; None when the registry does not say.

    `platform` is `os/architecture`; None is the daemon's own. Raises EnvironmentUnfitError.
    """
    manifest = _manifest(engine, reference)
    if "manifests" in manifest:
        entry = _for_platform(manifest["manifests"], platform or _own_platform(engine))
        manifest = _manifest(engine, f"{repository(reference)}@{entry}") if entry else {}
    try:
        return sum(int(layer["size"]) for layer in manifest["layers"])
    except (KeyError, TypeError, ValueError):
        return None


def _manifest(engine: DockerEngine, reference: str) -> dict[str, Any]:
    # As the daemon has it: HTTP for 127.0.0.0/8 alone.
    plain = ("--insecure",) if _is_loopback(reference) else ()
    try:
        asked = engine.command("manifest", "inspect", *plain, reference, timeout_s=_TIMEOUT_S, check=False)
        found = json.loads(asked.stdout)
    except (EnvironmentUnfitError, ValueError):  # too slow, or not JSON
        return {}
    return found if isinstance(found, dict) else {}


def _for_platform(entries: Any, platform: str) -> str | None:  # noqa: ANN401  whatever the registry says
    for entry in entries if isinstance(entries, list) else ():
        said = entry.get("platform", {}) if isinstance(entry, dict) else {}
        if f"{said.get('os')}/{said.get('architecture')}" == platform:
            return str(entry.get("digest"))
    return None


def _own_platform(engine: DockerEngine) -> str:
    with engine.asking():
        said = engine.api.version()
        return f"{said['Os']}/{said['Arch']}"


def repository(reference: str) -> str:
    """Without tag and digest: a colon after the last slash begins a tag."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _is_loopback(reference: str) -> bool:
    host = reference.partition("/")[0].partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
