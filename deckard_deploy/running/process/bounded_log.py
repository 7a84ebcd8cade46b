"""A log of bounded size: one file and the one before it, each with a maximum of bytes."""

import os
from pathlib import Path


class BoundedLog:
    """Append bytes. A file that would exceed `limit` bytes is renamed to `<name>.1`, and a new one begins."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._descriptor = self._new()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append bytes. Raises OSError (disk full); the next call tries again."""
        for start in range(0, len(data), self._limit):
            part = data[start : start + self._limit]
            if self._size + len(part) > self._limit:
                # The new file is opened first: if that fails, the old descriptor must not be closed twice.
                new = self._new()
                os.close(self._descriptor)
                self._descriptor, self._size = new, 0
            self._size += os.write(self._descriptor, part)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _new(self) -> int:
        if self._path.exists():
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)


class LogReader:
    """A reader of a BoundedLog that another process writes; follows its rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def read(self) -> bytes:
        """Return the bytes since the last call, empty if there is no file yet. Never blocks."""
        data = self._rest()
        if self._replaced():
            data += self._rest()  # bytes between the read above and the rotation
            self.close()
            self._open()
            data += self._rest()
        return data

    def close(self) -> None:
        """Close the file. The next read starts at the beginning of the newest file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._descriptor = None

    def _rest(self) -> bytes:
        if self._descriptor is None:
            return b""
        parts = []
        while part := os.read(self._descriptor, 1 << 20):
            parts.append(part)
        return b"".join(parts)

    def _replaced(self) -> bool:
        if self._descriptor is None:
            return True
        try:
            newest = self._path.stat()
        except FileNotFoundError:
            return False  # between the rename and the new file
        return newest.st_ino != os.fstat(self._descriptor).st_ino
