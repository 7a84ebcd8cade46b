"""The engine's own files, read from an installed vLLM or the cache (wheels: wheel.py, images: image_files.py).

The functions return bytes; `build` verifies their hashes, whatever the source.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.patching.manifest import PatchSet, sha256
from deckard_deploy.system.files import write_atomically

MAX_MODULE_BYTES = 4 << 20  # vLLM's largest module is a quarter of a megabyte


@dataclass(frozen=True, kw_only=True)
class BaseFiles:
    """The content of files by target. `package` is the folder of their vllm package, if it is known."""

    files: Mapping[str, bytes]
    origin: str
    package: PurePosixPath | None = None


def from_package(package: Path, targets: Iterable[str]) -> BaseFiles:
    """Read from the folder of an installed `vllm` package.

    Raises EnvironmentUnfitError if a file is missing.
    """
    files = {}
    for target in targets:
        if package.name == "vllm":
            path = package.parent / target
        else:
            path = package / PurePosixPath(target).relative_to("vllm")
        try:
            files[target] = path.read_bytes()
        except OSError as error:
            raise EnvironmentUnfitError(
                f"{path}: {error.strerror}", hint="name the folder of the vllm package"
            ) from error
    return BaseFiles(files=files, origin=f"{package}", package=PurePosixPath(package))


def from_cache(cache: Path, patch_set: PatchSet) -> BaseFiles | None:
    """Return the patch set's base files from the cache; None unless all are there with the right hashes."""
    files = {}
    for patch in patch_set.patches:
        path = cache / patch.base_sha256
        if not path.is_file():
            return None
        content = path.read_bytes()
        if sha256(content) != patch.base_sha256:
            return None
        files[patch.target] = content
    return BaseFiles(files=files, origin=f"cache {cache}")


def save_to_cache(cache: Path, base: BaseFiles) -> None:
    """Save base files by their hash, for a later build without the engine. Raises OSError."""
    cache.mkdir(parents=True, exist_ok=True)
    for content in base.files.values():
        write_atomically(cache / sha256(content), content, mode=0o644)
