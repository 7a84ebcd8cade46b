"""deckard.lock: the commits, hashes and digests that a deployment is held to; for git, beside deckard.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.resources import LOCK_FILE
from deckard_deploy.system.files import UMASK_MODE, write_atomically
from deckard_deploy.weights.manifest import Entry, Manifest, RemoteFile, Text, first_fault
from deckard_deploy.weights.strict_json import parse_object, require_regular

DEFAULT = LOCK_FILE
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Lock(Entry):
    """What is held to what.

    models: by catalog name. images: reference -> digest. patches: patch set -> name -> sha256 of the patched file.
    plugins: name -> sha256 of the wheel.
    """

    version: Literal[1] = 1
    models: dict[str, Manifest] = Field(default_factory=dict)
    images: dict[str, Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]] = Field(default_factory=dict)
    patches: dict[Text, dict[Text, _Sha256]] = Field(default_factory=dict)
    plugins: dict[str, _Sha256] = Field(default_factory=dict)

    def updated(self, other: "Lock") -> "Lock":
        """This one with the other's entries in place of its own."""
        return Lock(
            models=self.models | other.models,
            images=self.images | other.images,
            patches=self.patches | other.patches,
            plugins=self.plugins | other.plugins,
        )


def read(path: Path) -> Lock | None:
    """None when there is no such file. Raises BadInputError when it is not a lock."""
    again = f"git checkout {path}; or rm {path}, then deckard-deploy lock"  # which adds to what is there
    try:
        require_regular(path)
        content = path.read_bytes()
        # No key twice, as a merge may leave it: whoever reviews sees both.
        parse_object(content, source=str(path))
        return Lock.model_validate_json(content)
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        raise BadInputError(error.message, hint=again) from error
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise BadInputError(f"{path}: {first_fault(error)}"[:200], hint=again) from error


def write(path: Path, lock: Lock) -> None:
    """Write it whole, sorted, with a line per value. Raises EnvironmentUnfitError."""
    ordered = Lock(
        models={name: _sorted(lock.models[name]) for name in sorted(lock.models)},
        images=dict(sorted(lock.images.items())),
        patches={name: dict(sorted(hashes.items())) for name, hashes in sorted(lock.patches.items())},
        plugins=dict(sorted(lock.plugins.items())),
    )
    write_atomically(path, ordered.model_dump_json(indent=1, exclude_none=True) + "\n", mode=UMASK_MODE)


def _sorted(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"files": tuple(sorted(manifest.files, key=lambda file: file.path))})


def differences(old: Lock, new: Lock) -> Iterator[str]:
    """What moved from `old` to `new`, of the entries that `new` has, a line each."""
    for name, manifest in new.models.items():
        yield from _model_differences(name, old.models.get(name), manifest)
    for image, digest in new.images.items():
        if old.images.get(image) != digest:
            yield f"image {image}: {old.images.get(image, 'not locked')} -> {digest}"
    for patch_set, hashes in new.patches.items():
        known = old.patches.get(patch_set, {})
        for patch in sorted(hashes.keys() | known.keys()):
            if hashes.get(patch) != known.get(patch):
                yield f"patch {patch_set}/{patch}: {_short(known.get(patch))} -> {_short(hashes.get(patch))}"
    for plugin, sha256 in new.plugins.items():
        if old.plugins.get(plugin) != sha256:
            yield f"plugin {plugin}: {_short(old.plugins.get(plugin))} -> {_short(sha256)}"


def _model_differences(name: str, old: Manifest | None, new: Manifest) -> Iterator[str]:
    if old is None:
        yield f"{name}: not locked -> {new.repo} at {new.commit[:12]}, license {new.license or 'not named'}"
        return
    if old.license != new.license:
        yield f"{name}: license {old.license or 'not named'} -> {new.license or 'not named'}"
    if (old.repo, old.commit) != (new.repo, new.commit):
        yield f"{name}: {old.repo} at {old.commit[:12]} -> {new.repo} at {new.commit[:12]}"
    before, after = ({file.path: file for file in one.files} for one in (old, new))
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield f"{name}: {path}: {_digest(before.get(path))} -> {_digest(after.get(path))}"


def _digest(file: RemoteFile | None) -> str:
    return _short(file.digest if file else None)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "not there"
