"""The engine's own files, from where they are nearest: an installed vLLM, its image, a wheel of the release, a cache.

What comes back is bytes; whether they are the right ones is decided by their hash in `build`, wherever they came from.
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
    """target -> content. `package` is the folder of the vllm package where the files lie, if it is known."""

    files: Mapping[str, bytes]
    origin: str
    package: PurePosixPath | None = None


def from_package(package: Path, targets: Iterable[str]) -> BaseFiles:
    """Read from an installed `vllm` package folder. Raises EnvironmentUnfitError when a file is not there."""
    files = {}
    for target in targets:
        path = (
            package.parent / target
            if package.name == "vllm"
            else package / PurePosixPath(target).relative_to("vllm")
        )
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
    """Read out of a local image, from a container that is created and never started.

    package: where the vllm package lies in the image; found when it is not given. endpoint: of the docker engine; the
    environment's when it is not given.
    Raises EnvironmentUnfitError: no docker, no such image here, no vLLM in it.
    """
    import docker  # noqa: PLC0415  heavy
    from docker.errors import DockerException, ImageNotFound  # noqa: PLC0415  same
    from requests import RequestException  # noqa: PLC0415  same

    try:
        with closing(docker.DockerClient(base_url=endpoint) if endpoint else docker.from_env()) as client:
            container = client.containers.create(image, entrypoint=["true"], network_disabled=True)
            try:
                found = package or _find_package(container, image)
                files = {target: _archived(container, found.parent / target) for target in targets}
            finally:
                container.remove(v=True, force=True)
    except ImageNotFound as error:
        raise EnvironmentUnfitError(
            f"image {image} is not on this host", hint=f"docker pull {image}"
        ) from error
    except (DockerException, RequestException, tarfile.TarError) as error:  # or its archive was cut off
        raise EnvironmentUnfitError(f"docker: {error}", hint="docker info") from error
    missing = [target for target, content in files.items() if content is None]
    if missing:
        raise EnvironmentUnfitError(f"image {image} has no {missing[0]} under {found.parent}")
    content = {target: data for target, data in files.items() if data is not None}
    return BaseFiles(files=content, origin=f"image {image}", package=found)


def from_cache(cache: Path, patch_set: PatchSet) -> BaseFiles | None:
    """What `keep` kept of this patch set's base files, all of them or nothing."""
    files = {}
    for patch in patch_set.patches:
        path = cache / patch.base_sha256
        if not path.is_file() or sha256(content := path.read_bytes()) != patch.base_sha256:
            return None
        files[patch.target] = content
    return BaseFiles(files=files, origin=f"cache {cache}")


def keep(cache: Path, base: BaseFiles) -> None:
    """Keep base files by their hash, for a build without the engine at hand."""
    cache.mkdir(parents=True, exist_ok=True)
    for content in base.files.values():
        write_atomically(cache / sha256(content), content, mode=0o644)


def _find_package(container: "Container", image: str) -> PurePosixPath:
    places = [
        root / "vllm"
        for root in _site_packages()
        if _archived(container, root / "vllm/version.py") is not None
    ]
    if len(places) != 1:
        seen = " and ".join(map(str, places)) or "no vllm package in the usual places"
        raise EnvironmentUnfitError(f"image {image}: {seen}", hint="say where it is: --package PATH")
    return places[0]


def _site_packages() -> Iterable[PurePosixPath]:
    # vLLM's releases support Python 3.10 to 3.13 (its wheel metadata); Debian and Ubuntu say dist-packages.
    for minor in (12, 13, 11, 10):
        for prefix in ("/usr/local/lib", "/opt/venv/lib", "/usr/lib"):
            for name in ("dist-packages", "site-packages"):
                yield PurePosixPath(prefix, f"python3.{minor}", name)


def _archived(container: "Container", path: PurePosixPath) -> bytes | None:
    """A regular file's content, None when nothing is there. Docker resolves links on the way, not the last one."""
    from docker.errors import NotFound  # noqa: PLC0415  heavy

    try:
        stream, _ = container.get_archive(str(path))
    except NotFound:
        return None
    data = bytearray()
    # To its end in any case: docker removes no container whose archive is still being read.
    for chunk in stream:
        if len(data) <= MAX_MODULE_BYTES:
            data += chunk
    if len(data) > MAX_MODULE_BYTES:
        raise IntegrityError(f"{path} in the image is larger than any module of vLLM")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.next()
        content = archive.extractfile(member) if member and member.isfile() else None
        if content is None:
            raise IntegrityError(f"{path} in the image is not a regular file")
        return content.read()
