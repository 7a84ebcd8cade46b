"""The transfer of one file over several connections into a `Partial`, with its hash computed on the way.

The client of huggingface_hub 2.4.0 compares no hashes, does not resume after a kill and does not retry after
a 5xx (tests/unit/weights/test_hub_client_control.py).
"""

import errno
import functools
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr
from requests import PreparedRequest, Response, Session

from deckard_deploy.errors import DeployError, EnvironmentUnfitError, NetworkError
from deckard_deploy.system.files import diagnostic_command
from deckard_deploy.weights.manifest import RemoteFile
from deckard_deploy.weights.partial import Partial
from deckard_deploy.weights.responses import (
    RangeIgnored,
    RetryableError,
    check_range,
    check_redirect,
    check_status,
    check_whole,
    keep_queue_short,
    pieces,
    translate_errors,
)

_HASH_CHUNK = 1 << 20
_PROGRESS_BYTES = 64 << 10  # a try that brought this many bytes resets the count of failures
_LONGEST_PAUSE_S = 30.0
_LONGEST_RETRY_AFTER_S = 300.0


@dataclass(frozen=True)
class TransferSettings:
    """The settings of a transfer.

    A connection slower than slowest_bytes_s over stall_s is stalled, and replaced.

    For a round trip up to near_us (microseconds) the receive queue is short, so that a kill loses at most 1
    MiB. Eight connections then get at most 8 x 64 KiB per round trip: more than 260 MB/s. For a longer round
    trip that would be too slow, so the queue stays long, and a kill loses its content.
    """

    connections: int = 8
    segment_bytes: int = 32 << 20
    retries: int = 6
    backoff_s: float = 0.5
    connect_s: float = 10.0
    stall_s: float = 20.0
    slowest_bytes_s: int = 10_000
    near_us: int = 2000


@dataclass(frozen=True)
class Remote:
    """A file, its URL, and the token to fetch it with."""

    url: str
    token: SecretStr | None
    file: RemoteFile


class Transfer:
    """The transfer of one file; `say` takes lines about pauses."""

    def __init__(
        self, remote: Remote, partial: Partial, pace: TransferSettings, *, say: Callable[[str], None]
    ) -> None:
        """Store the arguments; nothing is fetched yet."""
        self._remote = remote
        self._partial = partial
        self._pace = pace
        self._say = say
        self._stop = threading.Event()
        self._failure: DeployError | RangeIgnored | None = None
        self._segments: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self, on_bytes: Callable[[int], None]) -> str:
        """Fetch the missing bytes and return the hash of the whole file.

        on_bytes: called with the number of bytes that have arrived. Raises NetworkError,
        EnvironmentUnfitError. If the server ignores ranges, the file is fetched again from the start with one
        plain request.
        """
        try:
            return self._run_in_parallel(on_bytes)
        except RangeIgnored:
            self._say(
                f"{self._remote.file.path}: the server knows no ranges; from the start, over one connection"
            )
        # A new object: a thread of this one may still wait for its server, and must find `_stop` set
        # afterwards.
        return Transfer(self._remote, self._partial, self._pace, say=self._say)._run_alone(on_bytes)

    def _run_alone(self, on_bytes: Callable[[int], None]) -> str:
        self._partial.reset()
        return self._supervise([self._thread(self._fetch_whole)], on_bytes)

    def _run_in_parallel(self, on_bytes: Callable[[int], None]) -> str:
        unfinished = self._partial.unfinished()
        for segment in unfinished:
            self._segments.put(segment)
        count = min(self._pace.connections, len(unfinished))
        threads = [self._thread(self._fetch_segments) for _ in range(count)]
        return self._supervise(threads, on_bytes)

    def _thread(self, work: Callable[[Session], None]) -> threading.Thread:
        return threading.Thread(target=self._run_thread, args=(work,), daemon=True)

    def _supervise(self, threads: list[threading.Thread], on_bytes: Callable[[int], None]) -> str:
        """Hash the bytes in order while the threads fetch, until the file is complete or a thread failed."""
        for thread in threads:
            thread.start()
        try:
            return self._hash(on_bytes, threads)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=1.0)  # a thread that waits for its server checks `_stop` before it writes

    def _hash(self, on_bytes: Callable[[int], None], threads: list[threading.Thread]) -> str:
        hasher = self._remote.file.hasher()
        hashed = 0
        while hashed < self._partial.size:
            working = any(thread.is_alive() for thread in threads)
            ready = self._partial.contiguous_until(hashed)
            if self._failure:
                raise self._failure
            if ready == hashed:
                assert working  # noqa: S101  a thread that ended without a failure has completed its segments
                self._stop.wait(0.01)
                on_bytes(self._partial.done())
                continue
            data = self._partial.read(hashed, min(_HASH_CHUNK, ready - hashed))
            hasher.update(data)
            hashed += len(data)
            on_bytes(self._partial.done())
        return hasher.hexdigest()

    def _run_thread(self, work: Callable[[Session], None]) -> None:
        """Run `work` in a thread, and store its failure for the thread that hashes."""
        with Session() as session:
            session.auth = self._authorize
            session.hooks["response"] = [check_redirect]
            try:
                work(session)
            except (DeployError, RangeIgnored) as error:
                self._failure = error
            except (
                OSError
            ) as error:  # errors of requests are RetryableError by now, so this one is of the disk
                self._failure = self._disk_failure(error)

    def _disk_failure(self, error: OSError) -> EnvironmentUnfitError:
        left = self._partial.size - self._partial.done()
        causes = {
            errno.ENOSPC: f"needs {left:,} bytes more, and {self._partial.free_bytes():,} are free",
            errno.EDQUOT: f"needs {left:,} bytes more, and the quota is used up",  # guard: F18c
        }
        cause = causes.get(error.errno or 0, f"cannot write: {error.strerror}")
        look = diagnostic_command(error, self._partial.folder)
        hint = f"{look}; the same command goes on where it stopped"
        return EnvironmentUnfitError(f"{self._remote.file.path}: {cause}", hint=hint)

    def _authorize(self, request: PreparedRequest) -> PreparedRequest:
        """Send the token, and no credentials of ~/.netrc. requests drops it at a redirect to another host."""
        if self._remote.token:
            request.headers["Authorization"] = f"Bearer {self._remote.token.get_secret_value()}"
        return request

    def _fetch_segments(self, session: Session) -> None:
        """Fetch segments from the queue until it is empty."""
        while not self._stop.is_set():
            try:
                segment = self._segments.get_nowait()
            except queue.Empty:
                return
            request = functools.partial(self._request_range, session, segment)
            position = functools.partial(self._partial.position, segment)
            self._retry(request, position, self._partial.bounds(segment)[1])

    def _fetch_whole(self, session: Session) -> None:
        """Fetch the whole file with one request; every try starts at the first byte."""

        def position() -> int:
            if self._partial.unfinished():
                return 0
            return self._partial.size

        self._retry(functools.partial(self._request_whole, session), position, self._partial.size)

    def _retry(self, request: Callable[[], None], position: Callable[[], int], end: int) -> None:
        """Repeat a request until `position` reaches `end`.

        Raises NetworkError after more than `retries` tries in a row that brought no progress.
        """
        failures = 0
        while position() < end and not self._stop.is_set():
            before = position()
            try:
                with translate_errors():
                    request()
            except RetryableError as error:
                if position() - before >= _PROGRESS_BYTES:
                    failures = 0
                failures += 1
                if failures > self._pace.retries:  # guard: F1
                    raise NetworkError(
                        f"{self._remote.file.path}: {error}, {failures} times in a row",
                        hint="the same command again: it goes on where it stopped",
                    ) from error
                self._pause(failures, error)

    def _pause(self, failures: int, error: RetryableError) -> None:
        """Wait as long as the server asked for, else longer each time; jitter spreads the connections."""
        longest = min(_LONGEST_PAUSE_S, self._pace.backoff_s * 2.0 ** (failures - 1))
        pause = longest * random.uniform(0.5, 1)
        if error.retry_after is not None:  # guard: F8
            pause = min(error.retry_after, _LONGEST_RETRY_AFTER_S) + pause / 10
        if pause >= 1:
            self._say(f"{self._remote.file.path}: {error}; again in {pause:.0f} s")
        self._stop.wait(pause)

    def _request_range(self, session: Session, segment: int) -> None:
        """Request the rest of a segment. Raises RetryableError, RangeIgnored, NetworkError, OSError."""
        start = self._partial.position(segment)
        end = self._partial.bounds(segment)[1]
        etag = self._partial.etag
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if etag:
            headers["If-Range"] = etag
        with self._open(session, headers) as response:
            if self._stop.is_set():
                return
            if response.status_code == 200 and (start, end) != (0, self._partial.size):  # guard: F6
                if not etag:
                    raise RangeIgnored
                # Another replica may have another ETag for the same bytes; the hash of the file decides.
                self._partial.remember_etag("")
                raise RetryableError("the file's ETag has changed")
            if response.status_code == 206:
                check_range(response, start=start, end=end, size=self._partial.size)
            else:
                check_whole(response, size=self._partial.size)
            self._partial.remember_etag(response.headers.get("ETag", ""))
            self._write_body(response, segment, end)

    def _request_whole(self, session: Session) -> None:
        """Request the whole file. Raises RetryableError, NetworkError, OSError."""
        self._partial.reset()
        with self._open(session, {}) as response:
            if self._stop.is_set():
                return
            check_whole(response, size=self._partial.size)
            self._write_body(response, 0, self._partial.size)

    def _open(self, session: Session, headers: dict[str, str]) -> Response:
        response = session.get(
            self._remote.url,
            headers={**headers, "Accept-Encoding": "identity"},
            stream=True,
            timeout=(self._pace.connect_s, self._pace.stall_s),
        )
        try:
            check_status(response, self._remote.file.path)
        except (RetryableError, NetworkError):
            response.close()
            raise
        keep_queue_short(response, near_us=self._pace.near_us)
        return response

    def _write_body(self, response: Response, segment: int, end: int) -> None:
        """Write the body from this segment on, up to `end`. Raises RetryableError if it ends early."""
        for piece in pieces(response, stall_s=self._pace.stall_s, slowest_bytes_s=self._pace.slowest_bytes_s):
            left = piece
            while left and not self._stop.is_set():
                room = self._partial.bounds(segment)[1] - self._partial.position(segment)
                self._partial.append(segment, left[:room])
                left = left[room:]
                if not left or self._partial.bounds(segment)[1] == end:
                    break
                segment += 1
            if self._stop.is_set():
                return
        if self._partial.position(segment) < end:
            raise RetryableError("the connection ended early")
