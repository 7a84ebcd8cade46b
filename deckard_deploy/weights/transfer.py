"""Fetch one file over several connections into a `Partial`, hashing it as it comes.

What the hub's own client leaves out, measured with huggingface_hub 2.4.0: a comparison of hashes, going on after a
kill, and a second try after a 5xx.
"""

import errno
import functools
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from deckard_deploy.errors import DeployError, EnvironmentUnfitError, NetworkError
from deckard_deploy.system.files import next_look
from deckard_deploy.weights.manifest import RemoteFile
from deckard_deploy.weights.partial import Partial
from deckard_deploy.weights.responses import (
    Ignored,
    Transient,
    asking,
    check_range,
    check_redirect,
    check_status,
    check_whole,
    keep_queue_short,
    pieces,
)

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

_HASH_CHUNK = 1 << 20
_PROGRESS = 64 << 10  # so many bytes prove that trying again helps
_LONGEST_PAUSE_S = 30.0
_LONGEST_RETRY_AFTER_S = 300.0


@dataclass(frozen=True)
class Pace:
    """How hard to try. Below slowest_bytes_s over stall_s a connection counts as stalled and is replaced.

    Up to a round trip of near_us a kill costs at most 1 MiB, and 8 connections at most 8 x 64 KiB per round trip: over
    260 MB/s. Farther away that would be too slow, and a kill costs what the kernel holds.
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
    """Where a file is, and who asks for it."""

    url: str
    token: SecretStr | None
    file: RemoteFile


class Transfer:
    """One file's transfer; `say` hears of pauses, `on_bytes` of the bytes that are there."""

    def __init__(self, remote: Remote, partial: Partial, pace: Pace, *, say: Callable[[str], None]) -> None:
        """Nothing is fetched yet."""
        self._remote, self._partial, self._pace, self._say = remote, partial, pace, say
        self._stop = threading.Event()
        self._failure: DeployError | Ignored | None = None
        self._segments: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self, on_bytes: Callable[[int], None]) -> str:
        """Fetch what is missing and return the hash of the whole. Raises NetworkError, EnvironmentUnfitError.

        A server that ignores ranges gets one plain request for everything, from the start.
        """
        try:
            return self._in_parallel(on_bytes)
        except Ignored:
            self._say(
                f"{self._remote.file.path}: the server knows no ranges; from the start, over one connection"
            )
        # A new one, because a thread of this one may still wait for its server, and must then find it stopped.
        return Transfer(self._remote, self._partial, self._pace, say=self._say)._alone(on_bytes)

    def _alone(self, on_bytes: Callable[[int], None]) -> str:
        self._partial.reset()
        return self._supervise(
            [threading.Thread(target=self._guarded, args=(self._whole,), daemon=True)], on_bytes
        )

    def _in_parallel(self, on_bytes: Callable[[int], None]) -> str:
        unfinished = self._partial.unfinished()
        for segment in unfinished:
            self._segments.put(segment)
        count = min(self._pace.connections, len(unfinished))
        return self._supervise(
            [threading.Thread(target=self._guarded, args=(self._some,), daemon=True) for _ in range(count)],
            on_bytes,
        )

    def _supervise(self, threads: list[threading.Thread], on_bytes: Callable[[int], None]) -> str:
        """Hash behind the threads, in order, until the file is whole or one of them failed."""
        for thread in threads:
            thread.start()
        try:
            return self._hash(on_bytes, threads)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=1.0)  # one that waits for its server looks at `stop` before it writes

    def _hash(self, on_bytes: Callable[[int], None], threads: list[threading.Thread]) -> str:
        hasher, hashed = self._remote.file.hasher(), 0
        while hashed < self._partial.size:
            working = any(thread.is_alive() for thread in threads)
            ready = self._partial.frontier(hashed)
            if self._failure:
                raise self._failure
            if ready == hashed:
                assert working  # noqa: S101  a thread that ends without a failure has filled its segments
                self._stop.wait(0.01)
                on_bytes(self._partial.done())
                continue
            data = self._partial.read(hashed, min(_HASH_CHUNK, ready - hashed))
            hasher.update(data)
            hashed += len(data)
            on_bytes(self._partial.done())
        return hasher.hexdigest()

    def _guarded(self, work: Callable[["Session"], None]) -> None:
        """Run in a thread: what goes wrong is handed to the one that hashes."""
        from requests import Session  # noqa: PLC0415  heavy

        with Session() as session:
            session.auth = self._authorize
            session.hooks["response"] = [check_redirect]
            try:
                work(session)
            except (DeployError, Ignored) as error:
                self._failure = error
            except OSError as error:  # requests' own are Transient by now: this is our disk
                self._failure = self._disk_failure(error)

    def _disk_failure(self, error: OSError) -> EnvironmentUnfitError:
        path, left = self._remote.file.path, self._partial.size - self._partial.done()
        cause = {
            errno.ENOSPC: f"needs {left:,} bytes more, and {self._partial.free_bytes():,} are free",
            errno.EDQUOT: f"needs {left:,} bytes more, and the quota is used up",  # guard: F18c
        }.get(error.errno or 0, f"cannot write: {error.strerror}")
        look = next_look(error, self._partial.folder)
        return EnvironmentUnfitError(
            f"{path}: {cause}", hint=f"{look}; the same command goes on where it stopped"
        )

    def _authorize(self, request: "PreparedRequest") -> "PreparedRequest":
        """The token, and not what ~/.netrc has; requests drops it when it is sent on to another host."""
        if self._remote.token:
            request.headers["Authorization"] = f"Bearer {self._remote.token.get_secret_value()}"
        return request

    def _some(self, session: "Session") -> None:
        """Fill segments, in order, until none is left."""
        while not self._stop.is_set():
            try:
                segment = self._segments.get_nowait()
            except queue.Empty:
                return
            request = functools.partial(self._range, session, segment)
            self._persist(
                request, functools.partial(self._partial.position, segment), self._partial.bounds(segment)[1]
            )

    def _whole(self, session: "Session") -> None:
        """Everything in one request; every try begins anew."""
        whole = functools.partial(self._from_the_start, session)
        self._persist(
            whole, lambda: self._partial.size if not self._partial.unfinished() else 0, self._partial.size
        )

    def _persist(self, request: Callable[[], None], position: Callable[[], int], end: int) -> None:
        """Repeat a request until `end` is reached. Raises NetworkError after so many in a row that brought nothing."""
        failures = 0
        while position() < end and not self._stop.is_set():
            before = position()
            try:
                with asking():
                    request()
            except Transient as error:
                failures = 1 if position() - before >= _PROGRESS else failures + 1
                if failures > self._pace.retries:  # guard: F1
                    raise NetworkError(
                        f"{self._remote.file.path}: {error}, {failures} times in a row",
                        hint="the same command again: it goes on where it stopped",
                    ) from error
                self._pause(failures, error)

    def _pause(self, failures: int, error: Transient) -> None:
        """Wait as long as the server asked for, or longer each time, with jitter so that connections do not meet."""
        longest = min(_LONGEST_PAUSE_S, self._pace.backoff_s * 2.0 ** (failures - 1))
        pause = longest * random.uniform(0.5, 1)
        if error.retry_after is not None:  # guard: F8
            pause = min(error.retry_after, _LONGEST_RETRY_AFTER_S) + pause / 10
        if pause >= 1:
            self._say(f"{self._remote.file.path}: {error}; again in {pause:.0f} s")
        self._stop.wait(pause)

    def _range(self, session: "Session", segment: int) -> None:
        """One request for the rest of a segment. Raises Transient, Ignored, NetworkError, OSError."""
        start, end = self._partial.position(segment), self._partial.bounds(segment)[1]
        etag = self._partial.etag
        headers = {"Range": f"bytes={start}-{end - 1}", **({"If-Range": etag} if etag else {})}
        with self._open(session, headers) as response:
            if self._stop.is_set():
                return
            if response.status_code == 200 and (start, end) != (0, self._partial.size):  # guard: F6
                if not etag:
                    raise Ignored
                # Another replica may have another ETag for the same bytes; the hash will tell.
                self._partial.remember_etag("")
                raise Transient("the file's ETag has changed")
            if response.status_code == 206:
                check_range(response, start=start, end=end, size=self._partial.size)
            else:
                check_whole(response, size=self._partial.size)
            self._partial.remember_etag(response.headers.get("ETag", ""))
            self._take(response, segment, end)

    def _from_the_start(self, session: "Session") -> None:
        self._partial.reset()
        with self._open(session, {}) as response:
            if self._stop.is_set():
                return
            check_whole(response, size=self._partial.size)
            self._take(response, 0, self._partial.size)

    def _open(self, session: "Session", headers: dict[str, str]) -> "Response":
        response = session.get(
            self._remote.url,
            headers={**headers, "Accept-Encoding": "identity"},
            stream=True,
            timeout=(self._pace.connect_s, self._pace.stall_s),
        )
        try:
            check_status(response, self._remote.file.path)
        except (Transient, NetworkError):
            response.close()
            raise
        keep_queue_short(response, near_us=self._pace.near_us)
        return response

    def _take(self, response: "Response", segment: int, end: int) -> None:
        """Write the body into this segment and the ones after it, up to `end`. Raises Transient if it ends early."""
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
            raise Transient("the connection ended early")
