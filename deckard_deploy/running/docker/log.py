"""A container's log, read by a thread, so that nobody waits for a line."""

import contextlib
import time
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.running.docker.client import DockerEngine
from deckard_deploy.system.text import LineSplitter

if TYPE_CHECKING:
    from docker import APIClient

_REATTACH_S = 0.3


class DockerLog:
    """Lines of one container from its first on, or the `last` so many, across its restarts."""

    def __init__(self, engine: DockerEngine, container: str, *, last: int | None = None) -> None:
        self.container = container
        self._last = last
        self._attached_at: int | None = None
        self._engine = engine
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._closed = Event()
        self._stream: Any = None  # docker.types.CancellableStream
        self._thread = Thread(target=self._read, name=f"log of {container[:12]}", daemon=True)
        self._thread.start()

    def poll(self) -> list[str]:
        """What came since the last call; never blocks."""
        lines = []
        try:
            while True:
                lines.append(self._lines.get_nowait())
        except Empty:
            return lines

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._stream is not None:
            self._stream.close()
        self._thread.join(timeout=2)

    def _read(self) -> None:
        from docker.errors import NotFound  # noqa: PLC0415  half a second

        seen = ""
        try:
            api = self._engine.connect()
            with api:
                # Following ends with the container; a restarted one is followed again from where it was left.
                while not self._closed.is_set():
                    # The daemon may come back, and the log with it.
                    with contextlib.suppress(EnvironmentUnfitError):  # guard: F32b
                        seen = self._attach(api, seen)
                    self._closed.wait(_REATTACH_S)
        except (NotFound, EnvironmentUnfitError):
            return  # the container or the daemon is gone, which whoever observes it learns first-hand

    def _attach(self, api: "APIClient", seen: str) -> str:
        """Read to the end of one stream; the time stamp of the last line (RFC 3339, nine digits: sorts as text)."""
        splitter = LineSplitter()
        after = seen
        with self._engine.asking():
            since = _seconds(after) or self._attached_at
            tail: Literal["all"] | int = "all" if self._last is None else self._last
            attached_at = int(time.time())
            self._stream = api.logs(
                self.container, stream=True, follow=True, timestamps=True, since=since, tail=tail
            )
            if self._last is not None:  # once: what comes after a restart is all new
                self._last, self._attached_at = None, attached_at
            for data in self._stream:
                for line in splitter.feed(data):
                    stamp, _, text = line.partition(" ")
                    if stamp > after:
                        self._lines.put(text)
                        seen = stamp
        return seen


def _seconds(stamp: str) -> int | None:
    """Whole seconds since 1970 of docker's time stamp, which is in UTC."""
    return int(datetime.fromisoformat(stamp[:19] + "+00:00").timestamp()) if stamp else None
