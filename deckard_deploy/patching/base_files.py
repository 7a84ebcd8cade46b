"""The engine's own files, read from an installed vLLM, an image or the cache (wheels: wheel.py).

The functions return bytes; `build` verifies their hashes, whatever the source.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.patching.manifest import PatchSet, sha256
from deckard_deploy.system.files import write_atomically

if TYPE_CHECKING:
    from docker.models.containers import Container

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


def from_image(
    image: str, targets: Iterable[str], *, package: PurePosixPath | None = None, endpoint: str | None = None
) -> BaseFiles:
    """Read from a local image, through a container that is created and never started.

    package: folder of the vllm package in the image; None: search the usual places. endpoint: of the docker
    engine; None: the one of the environment. Raises EnvironmentUnfitError: no docker, no such image here, no
    vLLM in it.
    """
    import docker  # noqa: PLC0415  heavy
    from docker.errors import DockerException, ImageNotFound  # noqa: PLC0415  same
    from requests import RequestException  # noqa: PLC0415  same

    try:
        opened = docker.DockerClient(base_url=endpoint) if endpoint else docker.from_env()
        with closing(opened) as client:
            container = client.containers.create(image, entrypoint=["true"], network_disabled=True)
            try:
                found = package or _find_package(container, image)
                files = {target: _read_file(container, found.parent / target) for target in targets}
            finally:
                container.remove(v=True, force=True)
    except ImageNotFound as error:
        raise EnvironmentUnfitError(
            f"image {image} is not on this host", hint=f"docker pull {image}"
        ) from error
    except (DockerException, RequestException, tarfile.TarError) as error:  # or a truncated archive
        raise EnvironmentUnfitError(f"docker: {error}", hint="docker info") from error
    present = {}
    for target, content in files.items():
        if content is None:
            raise EnvironmentUnfitError(f"image {image} has no {target} under {found.parent}")
        present[target] = content
    return BaseFiles(files=present, origin=f"image {image}", package=found)


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


def _find_package(container: "Container", image: str) -> PurePosixPath:
    """Return the folder of the image's only vllm package. Raises EnvironmentUnfitError."""
    found = []
    for site_packages in _site_packages():
        if _read_file(container, site_packages / "vllm/version.py") is not None:
            found.append(site_packages / "vllm")
    if len(found) != 1:
        places = " and ".join(map(str, found)) or "no vllm package in the usual places"
        raise EnvironmentUnfitError(f"image {image}: {places}", hint="say where it is: --package PATH")
    return found[0]


def _site_packages() -> Iterable[PurePosixPath]:
    # vLLM supports Python 3.10 to 3.13 (its wheel metadata). Debian and Ubuntu use dist-packages.
    for minor in (12, 13, 11, 10):
        for prefix in ("/usr/local/lib", "/opt/venv/lib", "/usr/lib"):
            for name in ("dist-packages", "site-packages"):
                yield PurePosixPath(prefix, f"python3.{minor}", name)


def _read_file(container: "Container", path: PurePosixPath) -> bytes | None:
    """Return the content of a regular file; None if it does not exist.

    Docker follows links in the folders of the path, not a link at its end. Raises IntegrityError for another
    kind of file, and for one that is too large.
    """
    from docker.errors import NotFound  # noqa: PLC0415  heavy

    try:
        stream, _ = container.get_archive(str(path))
    except NotFound:
        return None
    data = bytearray()
    # Read to the end in any case: docker cannot remove a container while its archive is being read.
    for chunk in stream:
        if len(data) <= MAX_MODULE_BYTES:
            data += chunk
    if len(data) > MAX_MODULE_BYTES:
        raise IntegrityError(f"{path} in the image is larger than any module of vLLM")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.next()
        content = None
        if member and member.isfile():
            content = archive.extractfile(member)
        if content is None:
            raise IntegrityError(f"{path} in the image is not a regular file")
        return content.read()
