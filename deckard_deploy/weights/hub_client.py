"""The client of the Hugging Face hub: the files of a repository at a revision, and their URLs.

Uses the public API of huggingface_hub, so that tokens, HF_ENDPOINT, mirrors, gated repositories and
HF_HUB_OFFLINE work as documented there. The transfer of files is our own (transfer.py).

Import it through `hub.connect`, which checks the address before this module imports huggingface_hub.
"""

import random
import time
from pathlib import Path
from typing import NoReturn

from huggingface_hub import HfApi, ModelInfo, get_token, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # of httpx in 1.x and of httpx2 in 2.x
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from pydantic import SecretStr, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError, NetworkError
from deckard_deploy.weights.manifest import Manifest, RemoteFile, first_error

_TIMEOUT_S = 20.0
_TRIES = 4


class HubClient:
    """The hub at one address."""

    def __init__(self, address: str) -> None:
        """Store the address."""
        self._address = address

    def token(self) -> SecretStr | None:
        """Return the token that huggingface_hub finds; None without one.

        Its sources are HF_TOKEN and the token stored by `hf auth login`.
        Raises BadInputError for a token with invalid characters.
        """
        found = get_token()
        if found and (not found.isprintable() or not found.isascii() or " " in found):
            raise BadInputError(
                "HF_TOKEN holds characters that no token has", hint="unset HF_TOKEN; hf auth login"
            )
        return SecretStr(found) if found else None

    def file_url(self, manifest: Manifest, file: RemoteFile) -> str:
        """Return the URL of the file."""
        return hf_hub_url(manifest.repo, file.path, revision=manifest.commit, endpoint=self._address)

    def cached_file(self, manifest: Manifest, file: RemoteFile) -> Path | None:
        """Return the path of the file in huggingface_hub's cache, unverified; None if it is not there."""
        found = try_to_load_from_cache(manifest.repo, file.path, revision=manifest.commit)
        if isinstance(found, str):
            return Path(found).resolve()
        return None

    def resolve(self, repo: str, revision: str | None, *, backoff_s: float = 1.0) -> Manifest:
        """Resolve `revision` (None: the main branch) to a commit with its files.

        Raises NetworkError, IntegrityError, BadInputError.
        """
        info = self._model_info(repo, revision, backoff_s)
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
                f"{self._address} describes {repo} oddly: {first_error(error)}",
                hint="unset HF_ENDPOINT, or ask who runs the mirror",
            ) from error

    def _model_info(self, repo: str, revision: str | None, backoff_s: float) -> ModelInfo:
        """Ask the hub, up to _TRIES times, with growing pauses. Raises NetworkError, BadInputError."""
        known = self.token()
        api = HfApi(endpoint=self._address, token=known.get_secret_value() if known else False)
        for attempt in range(_TRIES):
            info = self._try_model_info(api, repo, revision, last_try=attempt == _TRIES - 1)
            if info is not None:
                return info
            time.sleep(backoff_s * 2**attempt * random.uniform(0.5, 1))
        raise AssertionError("unreachable: the last attempt raises")

    def _try_model_info(
        self, api: HfApi, repo: str, revision: str | None, *, last_try: bool
    ) -> ModelInfo | None:
        """Ask the hub once. Return None for a failure that may pass, unless it is the last try.

        Raises NetworkError.
        """
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
                self._raise_refused(repo, revision, status, error)
        except HTTPError as error:
            if last_try:
                reason = " ".join(str(error).split())[:120] or type(error).__name__
                raise NetworkError(
                    f"{self._address} does not answer: {reason}", hint=f"curl -I {self._address}"
                ) from error
        # An HTML page, another kind of server, or JSON nested without end.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise NetworkError(
                f"{self._address} answers, but not as a hub does: a login page or a proxy?",
                hint=f"curl -i {self._address}",
            ) from error
        return None

    def _raise_refused(self, repo: str, revision: str | None, status: int, error: Exception) -> NoReturn:
        page = f"{self._address}/{repo}"
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
                f"{repo} is not at {self._address}, or only for those who may see it (HTTP {status})",
                hint="hf auth login",
            ) from error
        raise NetworkError(
            f"{self._address} answered HTTP {status} for {repo}", hint="try again in a minute"
        ) from error


def _remote_file(sibling: RepoSibling) -> RemoteFile:
    """Convert a file of the listing. Raises ValidationError, also for an unknown size."""
    size = -1
    if sibling.size is not None:
        size = sibling.size
    if sibling.lfs:
        return RemoteFile(path=sibling.rfilename, size=size, sha256=sibling.lfs.sha256)
    return RemoteFile(path=sibling.rfilename, size=size, git_blob=sibling.blob_id)


def _license(info: ModelInfo) -> str | None:
    named = getattr(info.card_data, "license", None)  # huggingface_hub returns an invalid card unparsed
    return named if isinstance(named, str) and named.isprintable() else None
