"""The Hugging Face hub: the files of a repository at a revision, and their URLs.

Uses the public API of huggingface_hub, so that tokens, HF_ENDPOINT, mirrors, gated repositories and
HF_HUB_OFFLINE work as documented there. The transfer of files is our own (transfer.py).
"""

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError, NetworkError
from deckard_deploy.weights.manifest import Manifest, RemoteFile, first_error

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.hf_api import RepoSibling

_TIMEOUT_S = 20.0
_TRIES = 4


def endpoint() -> str:
    """Return HF_ENDPOINT, or the public hub. Raises BadInputError for an invalid address.

    Call this before importing huggingface_hub: its import raises ValueError if the address cannot be parsed.
    """
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        usable = usable and not parts.username and not parts.password
    except ValueError:  # an unclosed bracket, or an invalid port
        usable = False
    if not usable:
        raise BadInputError(
            "HF_ENDPOINT is not an http(s) address without credentials", hint="unset HF_ENDPOINT"
        )
    return address


def token() -> SecretStr | None:
    """Return the token that huggingface_hub finds; None without one.

    Its sources are HF_TOKEN and the token stored by `hf auth login`.
    Raises BadInputError for a token with invalid characters.
    """
    endpoint()
    from huggingface_hub import get_token  # noqa: PLC0415  slow (0.3 s)

    found = get_token()
    if found and (not found.isprintable() or not found.isascii() or " " in found):
        raise BadInputError(
            "HF_TOKEN holds characters that no token has", hint="unset HF_TOKEN; hf auth login"
        )
    return SecretStr(found) if found else None


def file_url(manifest: Manifest, file: RemoteFile) -> str:
    """Return the URL of the file."""
    address = endpoint()
    from huggingface_hub import hf_hub_url  # noqa: PLC0415  slow (0.3 s)

    return hf_hub_url(manifest.repo, file.path, revision=manifest.commit, endpoint=address)


def cached_file(manifest: Manifest, file: RemoteFile) -> Path | None:
    """Return the path of the file in huggingface_hub's cache, unverified; None if it is not there."""
    endpoint()
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  slow (0.3 s)

    found = try_to_load_from_cache(manifest.repo, file.path, revision=manifest.commit)
    if isinstance(found, str):
        return Path(found).resolve()
    return None


def resolve(repo: str, revision: str | None, *, backoff_s: float = 1.0) -> Manifest:
    """Resolve `revision` (None: the main branch) to a commit with its files.

    Raises NetworkError, IntegrityError, BadInputError.
    """
    info = _model_info(repo, revision, backoff_s)
    files = []
    try:
        for sibling in info.siblings or ():
            files.append(_remote_file(sibling))
        return Manifest(
            repo=repo,
            commit=info.sha or "",
            license=_license(info),
            files=tuple(files),
        )
    except ValidationError as error:
        raise IntegrityError(
            f"{endpoint()} describes {repo} oddly: {first_error(error)}",
            hint="unset HF_ENDPOINT, or ask who runs the mirror",
        ) from error


def _remote_file(sibling: "RepoSibling") -> RemoteFile:
    """Convert a file of the listing. Raises ValidationError, also for an unknown size."""
    size = -1
    if sibling.size is not None:
        size = sibling.size
    if sibling.lfs:
        return RemoteFile(path=sibling.rfilename, size=size, sha256=sibling.lfs.sha256)
    return RemoteFile(path=sibling.rfilename, size=size, git_blob=sibling.blob_id)


def _license(info: "ModelInfo") -> str | None:
    named = getattr(info.card_data, "license", None)  # huggingface_hub returns an invalid card unparsed
    return named if isinstance(named, str) and named.isprintable() else None


def _model_info(repo: str, revision: str | None, backoff_s: float) -> "ModelInfo":
    """Ask the hub, up to _TRIES times, with growing pauses. Raises NetworkError, BadInputError."""
    address = endpoint()
    from huggingface_hub import HfApi  # noqa: PLC0415  slow (0.3 s)

    known = token()
    api = HfApi(endpoint=address, token=known.get_secret_value() if known else False)
    for attempt in range(_TRIES):
        info = _try_model_info(api, address, repo, revision, last_try=attempt == _TRIES - 1)
        if info is not None:
            return info
        time.sleep(backoff_s * 2**attempt * random.uniform(0.5, 1))
    raise AssertionError("unreachable: the last attempt raises")


def _try_model_info(
    api: "HfApi", address: str, repo: str, revision: str | None, *, last_try: bool
) -> "ModelInfo | None":
    """Ask the hub once. Return None for a failure that may pass, unless it is the last try.

    Raises NetworkError.
    """
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # noqa: PLC0415  slow (0.3 s)
        HfHubHTTPError,
        HTTPError,  # of httpx in 1.x and of httpx2 in 2.x
        OfflineModeIsEnabled,
    )

    try:
        return api.model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
    except OfflineModeIsEnabled as error:
        raise NetworkError(
            f"HF_HUB_OFFLINE is set, and nothing here says what {repo} holds",
            hint="unset HF_HUB_OFFLINE, or bring a deckard.lock",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if last_try or (status != 429 and status < 500):
            _raise_refused(repo, revision, status, error)
    except HTTPError as error:
        if last_try:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise NetworkError(f"{address} does not answer: {reason}", hint=f"curl -I {address}") from error
    # An HTML page, another kind of server, or JSON nested without end.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NetworkError(
            f"{address} answers, but not as a hub does: a login page or a proxy?",
            hint=f"curl -i {address}",
        ) from error
    return None


def _raise_refused(repo: str, revision: str | None, status: int, error: Exception) -> NoReturn:
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError  # noqa: PLC0415  slow (0.3 s)

    page = f"{endpoint()}/{repo}"
    if isinstance(error, GatedRepoError):
        raise NetworkError(
            f"{repo} is gated", hint=f"accept the licence at {page}, then: hf auth login"
        ) from error
    if isinstance(error, RevisionNotFoundError):  # guard: F12
        raise NetworkError(
            f"{repo} has no revision {revision}", hint=f"look at {page}/commits/main"
        ) from error
    if status in (401, 403, 404):
        raise NetworkError(
            f"{repo} is not at {endpoint()}, or only for those who may see it (HTTP {status})",
            hint="hf auth login",
        ) from error
    raise NetworkError(
        f"{endpoint()} answered HTTP {status} for {repo}", hint="try again in a minute"
    ) from error
