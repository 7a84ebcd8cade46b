"""A checkpoint on the hub, read without its weights: its small files, and the headers of its tensors."""

import struct
from collections.abc import Callable
from pathlib import Path

import requests

from deckard_deploy.errors import IntegrityError, NetworkError
from deckard_deploy.system.files import write_atomically
from deckard_deploy.weights import hub
from deckard_deploy.weights.checkpoint import Checkpoint, assemble_checkpoint
from deckard_deploy.weights.folder import PRIVATE_FOLDER
from deckard_deploy.weights.manifest import Manifest, RemoteFile, total_bytes
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.responses import RetryableError, check_range, check_status, translate_errors
from deckard_deploy.weights.safetensors_header import LARGEST_HEADER, Tensor, parse_header

# More than any configuration, tokenizer or index of a Gemma 4 (the 31B's tokenizer.json has 32 MB).
_LARGEST_SMALL_FILE = 64 << 20
# Of all headers of a repository: those of a Gemma 4 31B have less than 1 MB.
_LARGEST_HEADERS = LARGEST_HEADER
_TIMEOUT_S = (10.0, 20.0)  # to connect, and between two bytes
_TRIES = 3
_LENGTH = struct.Struct("<Q")  # of the header, in front of it


def read_remote_checkpoint(manifest: Manifest, folder: Path, say: Callable[[str], None]) -> Checkpoint:
    """Return a repository's checkpoint. Its small files are pulled into `folder`, and hashed there.

    The headers are kept there too, by the hash of their file, so that the same commit is read again without the hub.
    Raises IntegrityError for an unsafe or damaged repository, and the errors of `pull`.
    """
    weights = [file for file in manifest.needed if file.path.endswith(".safetensors")]
    small = [file for file in manifest.needed if file not in weights and "/" not in file.path]
    if not weights:
        raise IntegrityError(
            f"{manifest.repo} has no safetensors at {manifest.commit[:12]}",
            hint="a repository with safetensors: pickles are not loaded",
        )
    if total_bytes(small) > _LARGEST_SMALL_FILE:
        raise IntegrityError(
            f"{manifest.repo}: {total_bytes(small):,} bytes beside the weights are no configuration"
        )
    pull(manifest.model_copy(update={"files": tuple(small)}), folder, PullReporter(say, lambda *_: None))
    by_name = {file.path: file for file in weights if "/" not in file.path}
    headers = _RemoteHeaders(manifest, folder / PRIVATE_FOLDER / "headers")
    return assemble_checkpoint(folder, by_name.keys(), lambda name: headers.read(by_name[name]))


class _RemoteHeaders:
    """The headers of a repository's safetensors files, _LARGEST_HEADERS bytes in all.

    kept: the folder of the headers that were read before.
    """

    def __init__(self, manifest: Manifest, kept: Path) -> None:
        self._manifest = manifest
        self._kept = kept
        self._left = _LARGEST_HEADERS

    def read(self, file: RemoteFile) -> dict[str, Tensor]:
        """Return the tensors of a file. Raises IntegrityError, NetworkError."""
        source = f"{self._manifest.repo}/{file.path}"
        kept = self._kept / f"{file.digest}.json"
        if kept.is_file():
            length = kept.stat().st_size
        else:
            (length,) = _LENGTH.unpack(_read_range(self._manifest, file, 0, _LENGTH.size))
        if length > file.size - _LENGTH.size:
            raise IntegrityError(
                f"{source}: a header of {length} bytes in a file of {file.size}: no safetensors"
            )
        self._left -= length
        if self._left < 0:
            raise IntegrityError(
                f"{source}: a header of {length} bytes; all headers may have {_LARGEST_HEADERS}"
            )
        if kept.is_file():
            return parse_header(kept.read_bytes(), file.size, source=source)
        header = _read_range(self._manifest, file, _LENGTH.size, length)
        tensors = parse_header(header, file.size, source=source)
        self._kept.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, header)
        return tensors


def _read_range(manifest: Manifest, file: RemoteFile, start: int, count: int) -> bytes:
    """Return `count` bytes of a file from `start` on. Raises NetworkError, IntegrityError for a file too short."""
    if start + count > file.size or count == 0:
        raise IntegrityError(f"{manifest.repo}/{file.path}: {file.size} bytes are no safetensors file")
    for attempt in range(1, _TRIES + 1):
        try:
            with translate_errors():
                return _request_range(manifest, file, start, count)
        except RetryableError as error:
            if attempt == _TRIES:
                raise NetworkError(f"{file.path}: {error}", hint="the same command again") from error
    raise AssertionError("unreachable: the last attempt raises")


def _request_range(manifest: Manifest, file: RemoteFile, start: int, count: int) -> bytes:
    client = hub.connect()
    token = client.token()
    headers = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token.get_secret_value()}"
    url = client.file_url(manifest, file)
    # Streamed: a server that ignores ranges would send the whole file.
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        check_status(response, file.path)
        if response.status_code == 206:
            check_range(response, start=start, end=start + count, size=file.size)
        else:
            response.raw.read(start, decode_content=False)
        data: bytes = response.raw.read(count, decode_content=False)
    if len(data) < count:
        raise RetryableError("the connection ended early")
    return data
