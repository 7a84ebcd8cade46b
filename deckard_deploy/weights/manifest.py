"""What a repository holds at one commit: every file with its size and its hash. This is what a pull is held to."""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights.checkpoint import RUNS_CODE
from deckard_deploy.weights.strict_json import printable, require_regular

if TYPE_CHECKING:
    from _hashlib import HASH

_CHUNK = 1 << 20
_NOT_NEEDED = (*RUNS_CODE, ".gitattributes", ".gguf", ".onnx", ".h5", ".msgpack")


def _inside(path: str) -> str:
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


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("characters that can be printed were expected")
    return text


Text = Annotated[str, AfterValidator(_printable)]  # it is shown on terminals


class Entry(BaseModel):
    """Frozen and closed: a lock is reviewed in git, so nothing unknown passes."""

    # Built when it is first used: `verify --fast` must not be felt.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class RemoteFile(Entry):
    """One file: sha256 of its content (LFS), or the git blob id of a small one."""

    path: Annotated[str, AfterValidator(_inside)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    git_blob: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None

    @model_validator(mode="after")
    def _has_a_hash(self) -> "RemoteFile":
        if not self.digest:
            raise ValueError("sha256 or git_blob is needed")
        return self

    @property
    def digest(self) -> str:
        """Hexadecimal: the sha256 where there is one."""
        return self.sha256 or self.git_blob or ""

    @property
    def is_needed(self) -> bool:
        """Whether serving takes it: not code, not pickles, not another engine's format."""
        return not self.path.endswith(_NOT_NEEDED)

    def hasher(self) -> "HASH":
        """Gives `digest` once it was fed the content. git's blob id is the sha1 of "blob <size>\\0" and the content."""
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


class Manifest(Entry):
    """A repository at a commit. license: as its card names it, None when it names none."""

    repo: Text
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    license: Annotated[Text, Field(max_length=100)] | None = None
    files: tuple[RemoteFile, ...]

    @model_validator(mode="after")
    def _has_each_path_once(self) -> "Manifest":
        paths = {file.path for file in self.files}
        folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
        if len(paths) < len(self.files) or paths & folders:
            raise ValueError("a path stands there twice, or is a file and a folder")
        return self

    @property
    def needed(self) -> tuple[RemoteFile, ...]:
        """The files that a pull has to bring."""
        return tuple(file for file in self.files if file.is_needed)


def first_fault(error: ValidationError) -> str:
    """Where the first thing is that is wrong, and what, in one line: keys and names are somebody else's."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    return f"{printable(where)}: {first['msg'].removeprefix('Value error, ')}"


def bytes_of(files: Iterable[RemoteFile]) -> int:
    """Their sizes together."""
    return sum(file.size for file in files)


def hash_file(path: Path, file: RemoteFile) -> str:
    """The hash of what lies at `path`, of the kind that `file` has. Raises OSError."""
    hasher = file.hasher()
    with path.open("rb", buffering=0) as opened:
        while data := opened.read(_CHUNK):
            hasher.update(data)
    return hasher.hexdigest()


def read_manifest(path: Path) -> Manifest | None:
    """The manifest stored in a folder; None when there is none or it is damaged: it can be made again."""
    try:
        require_regular(path)
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror}", hint=f"ls -l {path.parent}") from error
