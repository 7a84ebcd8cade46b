"""The manifest of a repository at one commit: every file with its size and hash. A pull must match it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from deckard_deploy.errors import IntegrityError
from deckard_deploy.system.text import escaped
from deckard_deploy.weights.checkpoint import CODE_SUFFIXES
from deckard_deploy.weights.strict_json import require_regular

_CHUNK = 1 << 20
_NOT_NEEDED = (*CODE_SUFFIXES, ".gitattributes", ".gguf", ".onnx", ".h5", ".msgpack")


def _check_path(path: str) -> str:
    pure = PurePosixPath(path)
    safe = (
        pure.parts
        and not pure.is_absolute()
        and ".." not in pure.parts
        and "\\" not in path
        and path.isprintable()
    )
    if not safe or pure.parts[0] == ".deckard" or str(pure) != path:
        raise ValueError("a path inside the folder was expected")
    return path


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("characters that can be printed were expected")
    return text


PrintableText = Annotated[str, AfterValidator(_check_printable)]  # shown on terminals


class Hasher(Protocol):
    """An object of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Feed more content."""

    def hexdigest(self) -> str:
        """Return the hash of the content."""


class StrictModel(BaseModel):
    """A frozen model without unknown keys: locks and manifests are reviewed in git."""

    # The validator is built at the first use, because `verify --fast` must take no noticeable time.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class RemoteFile(StrictModel):
    """One file, with the sha256 of its content (LFS) or with its git blob id (small files)."""

    path: Annotated[str, AfterValidator(_check_path)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    git_blob: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None

    @model_validator(mode="after")
    def _require_hash(self) -> "RemoteFile":
        if not self.digest:
            raise ValueError("sha256 or git_blob is needed")
        return self

    @property
    def digest(self) -> str:
        """The sha256 if there is one, else the git blob id; hexadecimal."""
        return self.sha256 or self.git_blob or ""

    @property
    def is_needed(self) -> bool:
        """True unless the file is code, a pickle or in another engine's format."""
        return not self.path.endswith(_NOT_NEEDED)

    def hasher(self) -> Hasher:
        """Return a hasher that gives `digest` after it was fed the content.

        A git blob id is the sha1 of "blob <size>\\0" and the content.
        """
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


class Manifest(StrictModel):
    """A repository at a commit. license: as named on the model card, None if it names none."""

    repo: PrintableText
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    license: Annotated[PrintableText, Field(max_length=100)] | None = None
    files: tuple[RemoteFile, ...]

    @model_validator(mode="after")
    def _require_unique_paths(self) -> "Manifest":
        paths = {file.path for file in self.files}
        folders: set[str] = set()
        for path in paths:
            folders.update(str(folder) for folder in PurePosixPath(path).parents)
        if len(paths) < len(self.files) or paths & folders:
            raise ValueError("a path is listed twice, or is both a file and a folder")
        return self

    @property
    def needed(self) -> tuple[RemoteFile, ...]:
        """The files that a pull must fetch."""
        return tuple(file for file in self.files if file.is_needed)


def first_error(error: ValidationError) -> str:
    """Return the location and the message of the first error, in one printable line."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    return f"{escaped(where)}: {first['msg'].removeprefix('Value error, ')}"


def total_bytes(files: Iterable[RemoteFile]) -> int:
    """Return the sum of the sizes in bytes."""
    return sum(file.size for file in files)


def hash_file(path: Path, file: RemoteFile) -> str:
    """Return the hash of the content at `path`, of the same kind as the hash of `file`. Raises OSError."""
    hasher = file.hasher()
    with path.open("rb", buffering=0) as opened:
        data = opened.read(_CHUNK)
        while data:
            hasher.update(data)
            data = opened.read(_CHUNK)
    return hasher.hexdigest()


def read_manifest(path: Path) -> Manifest | None:
    """Read a stored manifest; None if it is missing or damaged. Raises IntegrityError if it is unreadable."""
    try:
        require_regular(path)
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror}", hint=f"ls -l {path.parent}") from error
