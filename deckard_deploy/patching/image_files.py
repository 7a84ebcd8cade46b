"""The engine's own files, read from an image through the docker SDK, which takes long to import."""

import io
import tarfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import PurePosixPath

import docker
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from requests import RequestException

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.patching.base_files import MAX_MODULE_BYTES, BaseFiles


def from_image(
    image: str, targets: Iterable[str], *, package: PurePosixPath | None = None, endpoint: str | None = None
) -> BaseFiles:
    """Read from a local image, through a container that is created and never started.

    package: folder of the vllm package in the image; None: search the usual places. endpoint: of the docker
    engine; None: the one of the environment. Raises EnvironmentUnfitError: no docker, no such image here, no
    vLLM in it.
    """
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


def _find_package(container: Container, image: str) -> PurePosixPath:
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


def _read_file(container: Container, path: PurePosixPath) -> bytes | None:
    """Return the content of a regular file; None if it does not exist.

    Docker follows links in the folders of the path, not a link at its end. Raises IntegrityError for another
    kind of file, and for one that is too large.
    """
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
