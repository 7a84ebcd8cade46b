"""The log of a container, read by a thread, so that a caller never waits for a line."""

import contextlib
import re
import time
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Literal

from docker import APIClient
from docker.errors import NotFound

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.running.docker.client import DockerClient
from deckard_deploy.system.text import RawLineSplitter, clean_bytes

_REATTACH_S = 0.3
# RFC 3339 with nine digits, in UTC (moby jsonmessage.RFC3339NanoFixed): time stamps sort as text.
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.Z+:-]*")


class DockerLog:
    """Clean lines of one container across its restarts: all of them, or from the `last` so many on."""

    def __init__(self, client: DockerClient, container: str, *, last: int | None = None) -> None:
        self.container = container
        self._last = last
        self._attached_at: int | None = None
        self._client = client
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._closed = Event()
        self._stream: Any = None  # docker.types.CancellableStream
        self._thread = Thread(target=self._read, name=f"log of {container[:12]}", daemon=True)
        self._thread.start()

    def poll(self) -> list[str]:
        """Return the lines since the last call; never block."""
        lines = []
        try:
            while True:
                lines.append(self._lines.get_nowait())
        except Empty:
            return lines

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        if self._stream is not None:
            self._stream.close()
        self._thread.join(timeout=2)

    def _read(self) -> None:
        seen = ""
        try:
            api = self._client.connect()
            with api:
                # A stream ends with the container. A restarted container gets a new stream, from the last
                # line on.
                while not self._closed.is_set():
                    # If the daemon is started again, the log continues.
                    with contextlib.suppress(EnvironmentUnfitError):  # guard: F32b
                        seen = self._attach(api, seen)
                    self._closed.wait(_REATTACH_S)
        except (NotFound, EnvironmentUnfitError):
            return  # the container or the daemon is gone; `observe` reports that

    def _attach(self, api: APIClient, seen: str) -> str:
        """Read one stream to its end. Return the time stamp of the last line."""
        splitter = RawLineSplitter()
        after = seen
        with self._client.translating_errors():
            since = _seconds(after) or self._attached_at
            tail: Literal["all"] | int = "all" if self._last is None else self._last
            attached_at = int(time.time())
            self._stream = api.logs(
                self.container, stream=True, follow=True, timestamps=True, since=since, tail=tail
            )
            if self._last is not None:  # only once: all lines after a restart are new
                self._last, self._attached_at = None, attached_at
            for data in self._stream:
                for line in splitter.feed(data):
                    stamp, text = _split_stamp(line)
                    if not stamp:
                        self._lines.put(text)
                    elif stamp > after:
                        self._lines.put(text)
                        seen = stamp
        return seen


def _split_stamp(line: bytes) -> tuple[str, str]:
    """Return docker's time stamp and the clean text behind it.

    The stamp is taken off first: a text with carriage returns overwrites all that stands before it.
    It is empty for a message of the daemon itself, which has no stamp.
    """
    stamp, _, text = line.partition(b" ")
    if not _STAMP.fullmatch(stamp):
        return "", clean_bytes(line)
    return stamp.decode(), clean_bytes(text)


def _seconds(stamp: str) -> int | None:
    """Return the whole seconds since 1970 of docker's time stamp, which is in UTC."""
    if not stamp:
        return None
    return int(datetime.fromisoformat(stamp[:19] + "+00:00").timestamp())
