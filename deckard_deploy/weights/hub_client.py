"""The client of the Hugging Face hub: the files of a repository at a revision, and their URLs.

Uses the public API of huggingface_hub, so that tokens, HF_ENDPOINT, mirrors, gated repositories and
HF_HUB_OFFLINE work as documented there. The transfer of files is our own (transfer.py).

Import it through `hub.connect`, which checks the address before this module imports huggingface_hub.
"""

import os
import random
import time
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

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
from deckard_deploy.weights.refusals import proxy_refusal, refusal
from deckard_deploy.weights.responses import RetryableError, retry_after_s

_TIMEOUT_S = 20.0
_TRIES = 4
_LONGEST_PAUSE_S = 60.0  # without a word to the user


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
        self._require_sizes(repo, info)
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

    def _require_sizes(self, repo: str, info: ModelInfo) -> None:
        """Raise IntegrityError for a listing without sizes or hashes, as of a mirror (huggingface_hub issue 1796)."""
        for sibling in info.siblings or ():
            if sibling.size is None or not (sibling.lfs or sibling.blob_id):
                raise IntegrityError(
                    f"{self._address} lists {repo} without sizes and hashes: nothing that it sends could be verified",
                    hint="make deckard.lock from the hub itself (HF_ENDPOINT= deckard-deploy lock): with the lock, a "
                    "pull takes the bytes from the mirror",
                )

    def _model_info(self, repo: str, revision: str | None, backoff_s: float) -> ModelInfo:
        """Ask the hub, up to _TRIES times, with growing pauses. Raises NetworkError, BadInputError."""
        known = self.token()
        api = HfApi(endpoint=self._address, token=known.get_secret_value() if known else False)
        for attempt in range(_TRIES):
            try:
                return self._try_model_info(api, repo, revision, last_try=attempt == _TRIES - 1)
            except RetryableError as error:
                pause = backoff_s * 2**attempt * random.uniform(0.5, 1)
                time.sleep(max(pause, error.retry_after or 0))
        raise AssertionError("unreachable: the last attempt raises")

    def _try_model_info(self, api: HfApi, repo: str, revision: str | None, *, last_try: bool) -> ModelInfo:
        """Ask the hub once. Raises RetryableError for a failure that may pass, unless it is the last try.

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
            self._raise_status(repo, revision, error, last_try=last_try)
        except HTTPError as error:
            self._raise_unreachable(error, last_try=last_try)
        # An HTML page, another kind of server, or JSON nested without end.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise NetworkError(
                f"{self._address} answers, but not as a hub does: a login page or a proxy?",
                hint=f"curl -i {self._address}",
            ) from error

    def _raise_status(
        self, repo: str, revision: str | None, error: HfHubHTTPError, *, last_try: bool
    ) -> NoReturn:
        status = error.response.status_code
        may_pass = status == 429 or (status >= 500 and status != 511)
        pause = retry_after_s(error.response.headers)
        if may_pass and pause is not None and pause > _LONGEST_PAUSE_S:
            raise NetworkError(
                f"{self._address} limits requests (HTTP {status}), and asks for {pause:.0f} s",
                hint=f"the same command in {pause:.0f} s; with a token the limit is higher: hf auth login",
            ) from error
        if may_pass and not last_try:
            raise RetryableError(f"HTTP {status}", pause) from error
        self._raise_refused(repo, revision, status, error)

    def _raise_unreachable(self, error: HTTPError, *, last_try: bool) -> NoReturn:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        found = proxy_refusal(reason)
        if found:
            raise NetworkError(found.cause, hint=found.hint) from error
        if not last_try:
            raise RetryableError(reason) from error
        raise NetworkError(
            f"{self._address} does not answer: {reason}", hint=f"curl -I {self._address}"
        ) from error

    def _raise_refused(self, repo: str, revision: str | None, status: int, error: HfHubHTTPError) -> NoReturn:
        page = f"{self._address}/{repo}"
        if isinstance(error, GatedRepoError):
            raise NetworkError(
                f"{repo} is gated", hint=f"accept the licence at {page}, then: hf auth login"
            ) from error
        if isinstance(error, RevisionNotFoundError):  # guard: F12
            raise NetworkError(
                f"{repo} has no revision {revision}", hint=f"look at {page}/commits/main"
            ) from error
        headers = error.response.headers
        found = refusal(status, host=urlsplit(self._address).hostname or self._address, headers=headers)
        if found:
            raise NetworkError(found.cause, hint=found.hint) from error
        if status == 401 and self.token() and "X-Error-Code" not in headers:
            raise _refused_token() from error
        if status in (401, 403, 404):
            raise NetworkError(
                f"{repo} is not at {self._address}, or only for those who may see it (HTTP {status})",
                hint="hf auth login",
            ) from error
        raise NetworkError(
            f"{self._address} answered HTTP {status} for {repo}", hint="try again in a minute"
        ) from error


def _refused_token() -> NetworkError:
    """Return the error for a token that the hub does not accept, which it refuses for a public model too."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name):
            return NetworkError(
                f"the hub does not accept the token in {name} (HTTP 401): it is expired, revoked or mistyped",
                hint=f"unset {name}: a public model needs no token; only then the one of `hf auth login` is used",
            )
    return NetworkError(
        "the hub does not accept the token of `hf auth login` (HTTP 401): it is expired or revoked",
        hint="hf auth logout: a public model needs no token; or: hf auth login, with a new HF_TOKEN",
    )


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
