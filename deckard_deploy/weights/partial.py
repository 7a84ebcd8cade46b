"""A file on its way: its bytes at their final places, and a journal of how far each segment has come.

<id>.part      as large as the file, holes where nothing came yet
<id>.journal   512 bytes of JSON (size, segment size, the server's ETag), then 8 bytes per segment: bytes that are there

Bytes are written first and the journal after them, so after a kill at any instant what the journal says is there; only
the bytes between two such writes are fetched again. A crash of the whole machine may lose what the journal promised:
the hash of the whole file, which is always taken, says so.
"""

import json
import os
import struct
import threading
from pathlib import Path

from deckard_deploy.system.files import sync_folder, writing
from deckard_deploy.weights.manifest import RemoteFile

_HEADER = 512
_SLOT = struct.Struct("<Q")
_LONGEST_ETAG = 192  # JSON writes a quote in two letters, and the header has no room for more


class Partial:
    """The unfinished file, open for writing from several threads, each in a segment of its own."""

    def __init__(self, folder: Path, file: RemoteFile, *, segment_bytes: int) -> None:
        """Continue what lies in `folder`, or begin. Raises EnvironmentUnfitError."""
        self.folder, self.size, self._segment_bytes = folder, file.size, segment_bytes
        self._path = folder / f"{file.digest}.part"
        self._journal_path = folder / f"{file.digest}.journal"
        self.etag = ""
        self._done: list[int] = []
        self._etag_lock = threading.Lock()
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            # A link would have another file overwritten.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._data = os.open(self._path, flags, 0o644)
            self._journal = os.open(self._journal_path, flags, 0o644)
            if not self._continue():  # guard: F2
                self.reset()

    @staticmethod
    def bytes_in(folder: Path, file: RemoteFile) -> int:
        """How much of the disk an unfinished file takes already."""
        try:
            return min(file.size, (folder / f"{file.digest}.part").stat().st_blocks * 512)
        except FileNotFoundError:
            return 0

    def bounds(self, segment: int) -> tuple[int, int]:
        """First byte of a segment, and the one after its last."""
        return segment * self._segment_bytes, min(self.size, (segment + 1) * self._segment_bytes)

    def _continue(self) -> bool:
        """Take up the journal, unless it is for another file or damaged."""
        count = -(-self.size // self._segment_bytes)
        journal = os.pread(self._journal, _HEADER + count * _SLOT.size + 1, 0)
        if len(journal) != _HEADER + count * _SLOT.size or os.fstat(self._data).st_size != self.size:
            return False
        try:
            header = json.loads(journal[:_HEADER])
        except ValueError:
            return False
        known = {"size": self.size, "segment": self._segment_bytes}
        if not isinstance(header, dict) or not known.items() <= header.items():
            return False
        self.etag = str(header.get("etag", ""))
        self._done = [value for (value,) in _SLOT.iter_unpack(journal[_HEADER:])]
        return all(self.position(number) <= self.bounds(number)[1] for number in range(count))

    def reset(self) -> None:
        """Forget everything that came. Raises OSError."""
        self._done = [0] * -(-self.size // self._segment_bytes)
        self.etag = ""
        os.ftruncate(self._journal, 0)
        os.ftruncate(self._data, 0)
        os.ftruncate(self._data, self.size)
        os.pwrite(self._journal, self._header() + bytes(len(self._done) * _SLOT.size), 0)

    def _header(self) -> bytes:
        header = {"size": self.size, "segment": self._segment_bytes, "etag": self.etag}
        return json.dumps(header).encode().ljust(_HEADER)

    def remember_etag(self, etag: str) -> None:
        """Keep a strong ETag for If-Range; a weak one cannot be used for ranges (RFC 9110, 13.1.5)."""
        written = etag.isascii() and etag.isprintable() and len(etag) <= _LONGEST_ETAG
        usable = etag if etag.startswith('"') and written else ""
        with self._etag_lock:
            if usable != self.etag:
                self.etag = usable
                os.pwrite(self._journal, self._header(), 0)

    def unfinished(self) -> list[int]:
        """The segments of which bytes are missing."""
        return [number for number in range(len(self._done)) if self.position(number) < self.bounds(number)[1]]

    def position(self, segment: int) -> int:
        """Where the next byte of a segment goes."""
        return self.bounds(segment)[0] + self._done[segment]

    def append(self, segment: int, data: memoryview) -> None:
        """Write the segment's next bytes, then note them. Raises OSError."""
        left, position = data, self.position(segment)
        while left:
            written = os.pwrite(self._data, left, position)
            left, position = left[written:], position + written
        self._done[segment] += len(data)
        os.pwrite(self._journal, _SLOT.pack(self._done[segment]), _HEADER + segment * _SLOT.size)

    def done(self) -> int:
        """Bytes that are there."""
        return sum(self._done)

    def free_bytes(self) -> int:
        """Free on its file system, for us."""
        found = os.fstatvfs(self._data)
        return found.f_bavail * found.f_frsize

    def frontier(self, known: int) -> int:
        """Up to where the file is there without a hole; `known` is an earlier answer."""
        segment = known // self._segment_bytes
        while segment < len(self._done) and self.position(segment) == self.bounds(segment)[1]:
            segment += 1
        return self.position(segment) if segment < len(self._done) else self.size

    def read(self, start: int, count: int) -> bytes:
        """Bytes that are there. Raises OSError."""
        return os.pread(self._data, count, start)

    def finish(self, final: Path) -> None:
        """Have every byte on disk, then give the file its name. Raises EnvironmentUnfitError.

        When they cannot be had there everything is forgotten: Linux takes the pages for clean then, so that a second
        fsync says yes, a hash of what it still holds is right, and the disk does not have them.
        """
        with writing(final):
            try:
                os.fsync(self._data)  # guard: F18a
            except OSError:  # guard: F18b
                self.reset()
                raise
            final.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(final)
            sync_folder(final.parent)
            self._journal_path.unlink()

    def close(self) -> None:
        """Close, and keep what came."""
        os.close(self._data)
        os.close(self._journal)
