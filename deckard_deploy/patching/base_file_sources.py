"""The sources of base files, and the order in which they are tried when none is named."""

import contextlib
import importlib.util
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deckard_deploy.errors import BadInputError
from deckard_deploy.patching.base_files import BaseFiles, from_cache, from_package, save_to_cache
from deckard_deploy.patching.manifest import PatchSet
from deckard_deploy.patching.wheel import from_wheel, release_wheel


class Source(NamedTuple):
    """The place of an engine's own files; empty: the nearest place.

    package: folder of a vllm package; together with `image`, its folder inside the image. endpoint: address of the
    docker engine that has the image. wheel: path or URL.
    """

    package: str | None = None
    image: str | None = None
    wheel: str | None = None
    endpoint: str | None = None


def find_base_files(patch_set: PatchSet, source: Source, *, cache: Path) -> BaseFiles:
    """Read the engine's own files from the source that is named, or else from the nearest one.

    The nearest: a vLLM that this Python can import, the cache, the wheel of the set's release. The files that were read
    are kept in the cache, if that can be written. Raises what the sources raise, and BadInputError when two are named.
    """
    package, image, wheel, endpoint = source
    if "" in (image, package, wheel):
        raise BadInputError(
            "--image, --package and --wheel cannot be empty", hint="is a shell variable not set?"
        )
    if wheel and (image or package):
        raise BadInputError("--wheel cannot be combined with --image or --package")
    targets = [patch.target for patch in patch_set.patches]
    if image:
        from deckard_deploy.patching.image_files import from_image  # noqa: PLC0415  the docker SDK

        base = from_image(
            image, targets, package=PurePosixPath(package) if package else None, endpoint=endpoint
        )
    elif package:
        base = from_package(Path(package), targets)
    elif wheel:
        base = from_wheel(wheel, targets)
    else:
        base = _nearest(patch_set, targets, cache)
    # The cache may be on a full or read-only disk. Then the next build reads the files from their source
    # again.
    with contextlib.suppress(OSError):
        save_to_cache(cache, base)
    return base


def _nearest(patch_set: PatchSet, targets: list[str], cache: Path) -> BaseFiles:
    installed = importlib.util.find_spec("vllm")
    if installed and installed.origin:
        return from_package(Path(installed.origin).parent, targets)
    return from_cache(cache, patch_set) or from_wheel(release_wheel(patch_set.vllm), targets)
