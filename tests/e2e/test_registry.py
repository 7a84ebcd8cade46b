"""A real registry (Debian's docker-registry): what a tag means, how large an image is, and whether there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.operations.disk_space import check
from deckard_deploy.operations.engine import verify_image_digest
from deckard_deploy.running.docker import images as docker_images
from deckard_deploy.running.docker import registry
from deckard_deploy.running.docker.client import DockerClient
from deckard_deploy.running.runtime import DiskNeed
from deckard_deploy.weights import lockfile
from tests.e2e.conftest import Tool, docker
from tests.e2e.private_daemon import private_daemon
from tests.support.docker_deployment import debian
from tests.support.ports import free_port, listens
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker
LAYER = 24 << 20
CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture(scope="module")
def engine() -> DockerClient:
    return DockerClient(environment=dict(os.environ), say=print)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry of its own."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    program = debian("docker-registry", folder) / "usr" / "bin" / "docker-registry"
    (folder / "config.yml").write_text(CONFIG.format(root=folder / "data", port=port))
    with subprocess.Popen([program, "serve", folder / "config.yml"], stderr=subprocess.DEVNULL) as process:
        address = f"127.0.0.1:{port}"
        eventually(lambda: listens(port))
        yield address
        process.terminate()


@pytest.fixture
def image(served: str, tmp_path: Path) -> Iterator[str]:
    """A tag in the registry, with one layer that does not compress, and not on this host any more."""
    reference = f"{served}/owner/engine:v1"
    push(reference, tmp_path)
    docker("image", "rm", reference)
    yield reference
    subprocess.run(["docker", "image", "rm", reference], capture_output=True, check=False)


def push(reference: str, folder: Path) -> None:
    (folder / "blob").write_bytes(os.urandom(LAYER))
    tar = subprocess.run(["tar", "-C", folder, "-c", "blob"], capture_output=True, check=True).stdout
    subprocess.run(["docker", "import", "-", reference], input=tar, capture_output=True, check=True)
    docker("push", "--quiet", reference)


def lock(tool: Tool, image: str, folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    engine = ["--engine", "vllm-0.19.1-cpu-docker", "--image", image, "--set", f"gateway_image={image}"]
    return tool(
        "lock", "--profile", "cpu", *engine, "--lock-file", str(folder / "deckard.lock"), *more, check=False
    )


def test_lock_resolves_tag_at_registry(tool: Tool, image: str, engine: DockerClient, tmp_path: Path):
    assert lock(tool, image, tmp_path).returncode == 0
    written = lockfile.read(tmp_path / "deckard.lock")
    assert written
    docker("pull", "--quiet", image)
    assert [written.images[image]] == docker_images.digests(engine, image)  # what docker then found it to be
    assert lock(tool, image, tmp_path, "--check").returncode == 0
    push(image, tmp_path)
    moved = lock(tool, image, tmp_path, "--check")
    assert moved.returncode == 4
    assert f"image {image}: {written.images[image]} -> sha256:" in moved.stdout


def test_up_requires_locked_digest(
    tool: Tool, image: str, engine: DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    docker("pull", "--quiet", image)
    verify_image_digest(image, docker_images.digests(engine, image))  # no lock yet
    assert lock(tool, image, tmp_path).returncode == 0
    verify_image_digest(image, docker_images.digests(engine, image))
    push(image, tmp_path)  # and the tag here is the new image now
    with pytest.raises(IntegrityError, match=r"deckard\.lock holds it to sha256:"):
        verify_image_digest(image, docker_images.digests(engine, image))


def test_missing_image_is_one_line(served: str, engine: DockerClient):
    with pytest.raises(NetworkError, match="does not say what") as caught:
        registry.digest_of(engine, f"{served}/owner/nothing:v1")
    assert "\n" not in caught.value.message
    assert registry.layer_bytes(engine, f"{served}/owner/nothing:v1", None) is None


def test_image_size_is_known_before_pull(image: str, engine: DockerClient):
    size = registry.layer_bytes(engine, image, None)
    assert size is not None
    assert LAYER <= size < LAYER + 100_000
    assert docker_images.image_id(engine, image) is None


def test_index_is_resolved_to_platform(image: str, engine: DockerClient):
    index = image.replace(":v1", ":both")
    subprocess.run(
        ["docker", "buildx", "imagetools", "create", "--tag", index, image], check=True, capture_output=True
    )
    assert registry.layer_bytes(engine, index, None) == registry.layer_bytes(engine, image, None)
    assert registry.layer_bytes(engine, index, "linux/s390x") is None


@pytest.fixture
def small_daemon() -> Iterator[DockerClient]:
    """A docker daemon that keeps images on a disk of 32 MiB: one layer fits, and then not unpacked as well."""
    if os.geteuid():
        pytest.skip("no right to mount")
    with private_daemon(size="32m") as daemon:
        yield daemon.engine


def test_image_without_disk_space_is_refused(image: str, small_daemon: DockerClient):
    """F17. The control is the pull itself, which is not checked: docker fails on the way, and its words are told."""
    need = docker_images.space_needed(small_daemon, image, None)
    assert isinstance(need, DiskNeed)
    with pytest.raises(
        EnvironmentUnfitError, match=r"needs [\d,]+ bytes \([\d,]+ for the image\), and [\d,]+ are"
    ):
        check([need])
    with pytest.raises(EnvironmentUnfitError, match="no space left for"):
        docker_images.pull(small_daemon, image, platform=None, on_bytes=lambda *_: None)
    assert docker_images.image_id(small_daemon, image) is None
