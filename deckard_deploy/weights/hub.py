"""The hub: what a repository holds at a revision, and where its files are.

Asked through huggingface_hub's public API, so tokens, HF_ENDPOINT, mirrors, gated repositories and HF_HUB_OFFLINE work
as its users know them. The transfer is ours (transfer.py).
"""

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError, NetworkError
from deckard_deploy.weights.manifest import Manifest, RemoteFile, first_fault

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_TIMEOUT_S = 20.0
_TRIES = 4


def endpoint() -> str:
    """HF_ENDPOINT, or the hub itself. Raises BadInputError when it is no address.

    Asked before huggingface_hub is imported: its import ends in a ValueError when the address cannot be parsed.
    """
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        usable = usable and not parts.username and not parts.password
    except ValueError:  # a bracket that is not closed, a port that is none
        usable = False
    if not usable:
        raise BadInputError(
            "HF_ENDPOINT is not an http(s) address without credentials", hint="unset HF_ENDPOINT"
        )
    return address


def token() -> SecretStr | None:
    """As huggingface_hub finds it: HF_TOKEN, or what `hf auth login` stored. Raises BadInputError for a garbled one."""
    endpoint()
    from huggingface_hub import get_token  # noqa: PLC0415  a third of a second

    found = get_token()
    if found and (not found.isprintable() or not found.isascii() or " " in found):
        raise BadInputError(
            "HF_TOKEN holds characters that no token has", hint="unset HF_TOKEN; hf auth login"
        )
    return SecretStr(found) if found else None


def file_url(manifest: Manifest, file: RemoteFile) -> str:
    """Where the file can be fetched from."""
    address = endpoint()
    from huggingface_hub import hf_hub_url  # noqa: PLC0415  a third of a second

    return hf_hub_url(manifest.repo, file.path, revision=manifest.commit, endpoint=address)


def cached_file(manifest: Manifest, file: RemoteFile) -> Path | None:
    """The file in huggingface_hub's own cache, if it is there; its content is not known to be right."""
    endpoint()
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  a third of a second

    found = try_to_load_from_cache(manifest.repo, file.path, revision=manifest.commit)
    return Path(found).resolve() if isinstance(found, str) else None


def resolve(repo: str, revision: str | None, *, backoff_s: float = 1.0) -> Manifest:
    """What `revision` (the main branch when None) is now. Raises NetworkError, IntegrityError, BadInputError."""
    info = _ask(repo, revision, backoff_s)
    try:
        return Manifest(
            repo=repo,
            commit=info.sha or "",
            license=_license(info),
            files=tuple(
                RemoteFile(
                    path=one.rfilename,
                    size=one.size if one.size is not None else -1,
                    sha256=one.lfs.sha256 if one.lfs else None,
                    git_blob=None if one.lfs else one.blob_id,
                )
                for one in info.siblings or ()
            ),
        )
    except ValidationError as error:
        raise IntegrityError(
            f"{endpoint()} describes {repo} oddly: {first_fault(error)}",
            hint="unset HF_ENDPOINT, or ask who runs the mirror",
        ) from error


def _license(info: "ModelInfo") -> str | None:
    named = getattr(info.card_data, "license", None)  # huggingface_hub leaves a card that is none as it came
    return named if isinstance(named, str) and named.isprintable() else None


def _ask(repo: str, revision: str | None, backoff_s: float) -> "ModelInfo":
    address = endpoint()
    from huggingface_hub import HfApi  # noqa: PLC0415  a third of a second
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # noqa: PLC0415  same
        HfHubHTTPError,
        HTTPError,  # of httpx in 1.x and of httpx2 in 2.x
        OfflineModeIsEnabled,
    )

    known = token()
    api = HfApi(endpoint=address, token=known.get_secret_value() if known else False)
    for attempt in range(_TRIES):
        try:
            return api.model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
        except OfflineModeIsEnabled as error:
            raise NetworkError(
                f"HF_HUB_OFFLINE is set, and nothing here says what {repo} holds",
                hint="unset HF_HUB_OFFLINE, or bring a deckard.lock",
            ) from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            if attempt == _TRIES - 1 or (status != 429 and status < 500):
                _refused(repo, revision, status, error)
        except HTTPError as error:
            if attempt == _TRIES - 1:
                reason = " ".join(str(error).split())[:120] or type(error).__name__
                raise NetworkError(
                    f"{address} does not answer: {reason}", hint=f"curl -I {address}"
                ) from error
        # An HTML page, another kind of server, or JSON nested without end.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise NetworkError(
                f"{address} answers, but not as a hub does: a login page or a proxy?",
                hint=f"curl -i {address}",
            ) from error
        time.sleep(backoff_s * 2**attempt * random.uniform(0.5, 1))
    raise AssertionError("unreachable: the last attempt raises")


def _refused(repo: str, revision: str | None, status: int, error: Exception) -> NoReturn:
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError  # noqa: PLC0415  a third of a second

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
