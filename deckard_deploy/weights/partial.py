"""An unfinished file: its bytes at their final offsets, and a journal of the progress of each segment.

<id>.part      a sparse file of the final size; a hole where no byte has arrived yet
<id>.journal   512 bytes of JSON (size, segment size, the server's ETag), then 8 bytes of progress per segment

The bytes are written before the journal. So after a kill at any instant all bytes that the journal counts are
in the file, and only the bytes between two such writes are fetched again. A crash of the machine may lose
bytes that the journal counts: the hash of the whole file, which is always computed, detects that.
"""

import json
import os
import struct
import threading
from pathlib import Path

from deckard_deploy.system.files import sync_folder, translating_write_errors
from deckard_deploy.weights.manifest import RemoteFile

_HEADER = 512
_SLOT = struct.Struct("<Q")
_LONGEST_ETAG = 192  # fits into the header even if JSON escapes each character to two


class Partial:
    """An unfinished file, open for writing from several threads, each in its own segment."""

    def __init__(self, folder: Path, file: RemoteFile, *, segment_bytes: int) -> None:
        """Resume from the files in `folder`, or start. Raises EnvironmentUnfitError."""
        self.folder, self.size, self._segment_bytes = folder, file.size, segment_bytes
        self._path = folder / f"{file.digest}.part"
        self._journal_path = folder / f"{file.digest}.journal"
        self.etag = ""
        self._done: list[int] = []
        self._etag_lock = threading.Lock()
        with translating_write_errors(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            # O_NOFOLLOW: through a link another file would be overwritten.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._data = os.open(self._path, flags, 0o644)
            self._journal = os.open(self._journal_path, flags, 0o644)
            if not self._continue():  # guard: F2
                self.reset()

    @staticmethod
    def bytes_in(folder: Path, file: RemoteFile) -> int:
        """Return the disk space in bytes that an unfinished file already takes."""
        try:
            return min(file.size, (folder / f"{file.digest}.part").stat().st_blocks * 512)
        except FileNotFoundError:
            return 0

    def bounds(self, segment: int) -> tuple[int, int]:
        """Return the offset of the first byte of a segment, and of the byte after its last."""
        begin = segment * self._segment_bytes
        return begin, min(self.size, begin + self._segment_bytes)

    def _continue(self) -> bool:
        """Read the journal. Return False if it is damaged or of another file."""
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
        """Discard all bytes. Raises OSError."""
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
        """Store a strong ETag for If-Range; a weak one is invalid there (RFC 9110, 13.1.5) and is dropped."""
        usable = ""
        if etag.startswith('"') and etag.isascii() and etag.isprintable() and len(etag) <= _LONGEST_ETAG:
            usable = etag
        with self._etag_lock:
            if usable != self.etag:
                self.etag = usable
                os.pwrite(self._journal, self._header(), 0)

    def unfinished(self) -> list[int]:
        """Return the numbers of the segments that miss bytes."""
        return [number for number in range(len(self._done)) if self.position(number) < self.bounds(number)[1]]

    def position(self, segment: int) -> int:
        """Return the offset of the next byte of a segment."""
        return self.bounds(segment)[0] + self._done[segment]

    def append(self, segment: int, data: memoryview) -> None:
        """Write the next bytes of a segment, then the journal. Raises OSError."""
        left = data
        position = self.position(segment)
        while left:
            written = os.pwrite(self._data, left, position)
            left = left[written:]
            position += written
        self._done[segment] += len(data)
        os.pwrite(self._journal, _SLOT.pack(self._done[segment]), _HEADER + segment * _SLOT.size)

    def done(self) -> int:
        """Return the number of bytes that have arrived."""
        return sum(self._done)

    def free_bytes(self) -> int:
        """Return the free space in bytes that its file system has for this user."""
        found = os.fstatvfs(self._data)
        return found.f_bavail * found.f_frsize

    def contiguous_until(self, known: int) -> int:
        """Return the offset of the first hole; `known` is an earlier answer, from which the search starts."""
        segment = known // self._segment_bytes
        while segment < len(self._done) and self.position(segment) == self.bounds(segment)[1]:
            segment += 1
        if segment >= len(self._done):
            return self.size
        return self.position(segment)

    def read(self, start: int, count: int) -> bytes:
        """Return bytes that have arrived. Raises OSError."""
        return os.pread(self._data, count, start)

    def finish(self, final: Path) -> None:
        """Flush the file to disk, then give it its final name. Raises EnvironmentUnfitError.

        If fsync fails, all bytes are discarded: Linux then marks the pages clean. A second fsync and a hash
        of the cached pages would succeed although the disk does not have the data.
        """
        with translating_write_errors(final):
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
        """Close the file and the journal, and keep both."""
        os.close(self._data)
        os.close(self._journal)
