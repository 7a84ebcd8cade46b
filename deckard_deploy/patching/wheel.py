"""Single files from the wheel of a release, local or remote, without downloading all of its 400 MB."""

import importlib.util
import io
import json
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from requests import RequestException, Session

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.patching.base_files import MAX_MODULE_BYTES, BaseFiles

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT_S = 30
# Large enough for the index of vLLM's wheel. Each file then takes one more request.
READ_AHEAD_BYTES = 1 << 18
# Errors that zipfile raises for a damaged archive. RuntimeError: encrypted, or another compression.
_DAMAGE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


def from_wheel(wheel: str, targets: Iterable[str], *, missing_ok: bool = False) -> BaseFiles:
    """Read from a wheel: a path, or an http(s) URL whose server answers ranges.

    missing_ok: leave out the targets that the wheel does not have. A release may have dropped a file.
    Raises NetworkError, EnvironmentUnfitError (no such file), IntegrityError (not a wheel of vLLM).
    """
    source: io.RawIOBase
    if wheel.startswith(("https://", "http://")):
        source = HttpFile(wheel)
    else:
        source = _open_local(wheel)
    try:
        with io.BufferedReader(source, READ_AHEAD_BYTES) as stream, zipfile.ZipFile(stream) as archive:
            if missing_ok:
                targets = [target for target in targets if target in archive.NameToInfo]
            files = {target: _read_member(archive, target, wheel) for target in targets}
    except _DAMAGE_ERRORS as error:
        raise IntegrityError(f"{wheel}: not a wheel ({error})") from error
    return BaseFiles(files=files, origin=f"wheel {wheel.rsplit('/', 1)[-1]}")


def release_wheel(version: str) -> str:
    """Return the URL of a release's x86_64 wheel, as pip resolves it with the index and mirrors of this host.

    The wheels of all platforms have the same Python files. Raises EnvironmentUnfitError without pip,
    NetworkError if the index does not answer or has no such wheel.
    """
    if importlib.util.find_spec("pip") is None:
        raise EnvironmentUnfitError("this Python has no pip", hint="--wheel PATH_OR_URL")
    # When pip resolves for another machine, a newer `manylinux_2_N` tag does not imply the older ones.
    platforms = [f"--platform=manylinux_2_{glibc}_x86_64" for glibc in range(17, 40)]
    resolve = (
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--quiet",
        "--report=-",
        "--target=unused",
    )
    target = (*platforms, "--platform=manylinux1_x86_64", "--python-version=3.12", "--only-binary=:all:")
    argv = (sys.executable, "-m", "pip", *resolve, *target, f"vllm=={version}")
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        reason = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise NetworkError(f"pip finds no wheel of vllm {version}: {reason}", hint="--wheel PATH_OR_URL")
    url = json.loads(found.stdout)["install"][0]["download_info"]["url"]
    return str(url)


class HttpFile(io.RawIOBase):
    """A read-only file on a web server, read by ranges."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = Session()
        self._position = 0
        self._size = self._fetch(0, 1)[1]

    def close(self) -> None:
        self._session.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = origins[whence] + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        with memoryview(buffer).cast("B") as view:
            end = min(self._position + len(view), self._size)
            if end <= self._position:
                return 0
            content, _ = self._fetch(self._position, end)
            view[: len(content)] = content
        self._position = end
        return len(content)

    def _fetch(self, begin: int, end: int) -> tuple[bytes, int]:
        """Return the bytes begin..end - 1 and the size of the whole file. Raises NetworkError."""
        wanted = {"Range": f"bytes={begin}-{end - 1}"}
        try:
            with self._session.get(self._url, headers=wanted, timeout=TIMEOUT_S, stream=True) as response:
                response.raise_for_status()
                content_range = response.headers.get("Content-Range", "")
                size = re.fullmatch(rf"bytes {begin}-{end - 1}/([0-9]+)", content_range)
                if response.status_code != 206 or size is None:  # the whole wheel would follow
                    raise NetworkError(f"{self._url}: the server does not answer ranges", hint="--wheel PATH")
                content = response.content
        except RequestException as error:
            raise NetworkError(f"{self._url}: {error}", hint="--wheel PATH") from error
        if len(content) != end - begin:
            raise NetworkError(
                f"{self._url}: {len(content)} bytes instead of {end - begin}", hint="--wheel PATH"
            )
        return content, int(size[1])


def _open_local(wheel: str) -> io.FileIO:
    try:
        return io.FileIO(wheel)
    except OSError as error:
        raise EnvironmentUnfitError(f"{Path(wheel)}: {error.strerror}") from error


def _read_member(archive: zipfile.ZipFile, target: str, wheel: str) -> bytes:
    try:
        member = archive.getinfo(target)
    except KeyError:
        raise IntegrityError(f"{wheel.rsplit('/', 1)[-1]} has no {target}") from None
    if member.file_size > MAX_MODULE_BYTES:
        raise IntegrityError(f"{target} has {member.file_size} bytes, more than any module of vLLM")
    return archive.read(member)
