"""deckard.lock: the commits, hashes and digests that a deployment must use; kept in git."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.resources import LOCK_FILE
from deckard_deploy.system.files import UMASK_MODE, write_atomically
from deckard_deploy.weights.manifest import Manifest, PrintableText, RemoteFile, StrictModel, first_error
from deckard_deploy.weights.strict_json import parse_object, require_regular

DEFAULT_PATH = LOCK_FILE
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Lock(StrictModel):
    """The contents of deckard.lock.

    models: manifest by catalog name. images: digest by reference. patches: sha256 of the patched file by
    patch set and patch name. plugins: sha256 of the wheel by plugin name.
    """

    version: Literal[1] = 1
    models: dict[str, Manifest] = Field(default_factory=dict)
    images: dict[str, Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]] = Field(default_factory=dict)
    patches: dict[PrintableText, dict[PrintableText, _Sha256]] = Field(default_factory=dict)
    plugins: dict[str, _Sha256] = Field(default_factory=dict)

    def updated(self, other: "Lock") -> "Lock":
        """Return this lock with the entries of `other` added; they replace entries of the same name."""
        return Lock(
            models=self.models | other.models,
            images=self.images | other.images,
            patches=self.patches | other.patches,
            plugins=self.plugins | other.plugins,
        )


def read(path: Path) -> Lock | None:
    """Read a lock file; None if it does not exist. Raises BadInputError if it is invalid."""
    # Without the rm, `lock` would add to the existing file.
    hint = f"git checkout {path}; or rm {path}, then deckard-deploy lock"
    try:
        require_regular(path)
        content = path.read_bytes()
        # A merge in git may leave a key twice. This refuses it: a reviewer sees both entries, pydantic only
        # one.
        parse_object(content, source=str(path))
        return Lock.model_validate_json(content)
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        raise BadInputError(error.message, hint=hint) from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise BadInputError(f"{path}: {first_error(error)}"[:200], hint=hint) from error


def write(path: Path, lock: Lock) -> None:
    """Write the lock atomically, sorted, with a line per value. Raises EnvironmentUnfitError."""
    models = {}
    for name in sorted(lock.models):
        models[name] = _with_sorted_files(lock.models[name])
    patches = {}
    for patch_set, hashes in sorted(lock.patches.items()):
        patches[patch_set] = dict(sorted(hashes.items()))
    ordered = Lock(
        models=models,
        images=dict(sorted(lock.images.items())),
        patches=patches,
        plugins=dict(sorted(lock.plugins.items())),
    )
    write_atomically(path, ordered.model_dump_json(indent=1, exclude_none=True) + "\n", mode=UMASK_MODE)


def _with_sorted_files(manifest: Manifest) -> Manifest:
    files = sorted(manifest.files, key=lambda file: file.path)
    return manifest.model_copy(update={"files": tuple(files)})


def differences(old: Lock, new: Lock) -> Iterator[str]:
    """Yield one line for each entry of `new` that differs from `old`."""
    for name, manifest in new.models.items():
        yield from _model_differences(name, old.models.get(name), manifest)
    for image, digest in new.images.items():
        if old.images.get(image) != digest:
            yield f"image {image}: {old.images.get(image, 'not locked')} -> {digest}"
    for patch_set, hashes in new.patches.items():
        yield from _patch_differences(patch_set, old.patches.get(patch_set, {}), hashes)
    for plugin, sha256 in new.plugins.items():
        if old.plugins.get(plugin) != sha256:
            yield f"plugin {plugin}: {_short(old.plugins.get(plugin))} -> {_short(sha256)}"


def _patch_differences(patch_set: str, old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    for patch in sorted(new.keys() | old.keys()):
        if new.get(patch) != old.get(patch):
            yield f"patch {patch_set}/{patch}: {_short(old.get(patch))} -> {_short(new.get(patch))}"


def _model_differences(name: str, old: Manifest | None, new: Manifest) -> Iterator[str]:
    if old is None:
        yield f"{name}: not locked -> {new.repo} at {new.commit[:12]}, license {new.license or 'not named'}"
        return
    if old.license != new.license:
        yield f"{name}: license {old.license or 'not named'} -> {new.license or 'not named'}"
    if (old.repo, old.commit) != (new.repo, new.commit):
        yield f"{name}: {old.repo} at {old.commit[:12]} -> {new.repo} at {new.commit[:12]}"
    before = {file.path: file for file in old.files}
    after = {file.path: file for file in new.files}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield f"{name}: {path}: {_digest(before.get(path))} -> {_digest(after.get(path))}"


def _digest(file: RemoteFile | None) -> str:
    if file is None:
        return _short(None)
    return _short(file.digest)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "not there"
