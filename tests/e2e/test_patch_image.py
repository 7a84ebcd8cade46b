"""Base files out of a real image, from a container that never runs."""

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.patching.image_files import from_image

pytestmark = pytest.mark.docker
TARGETS = ("vllm/v1/spec_decode/eagle.py", "vllm/model_executor/layers/quantization/modelopt.py")
SITE = "usr/local/lib/python3.12/dist-packages"
FILES = {
    f"{SITE}/vllm/version.py": b"__version__ = '0.19.1'\n",
    **{f"{SITE}/{one}": one.encode() for one in TARGETS},
}
MakeImage = Callable[[str, dict[str, bytes]], str]


@pytest.fixture
def make_image() -> Iterator[MakeImage]:
    images: list[str] = []

    def make(name: str, files: dict[str, bytes]) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, content in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        image = f"deckard-test/{name}:1"
        subprocess.run(
            ["docker", "import", "-", image], input=buffer.getvalue(), capture_output=True, check=True
        )
        images.append(image)
        return image

    yield make
    for image in images:
        assert containers_of(image) == []
        subprocess.run(["docker", "image", "rm", image], capture_output=True, check=True)


def containers_of(image: str) -> list[str]:
    argv = ["docker", "ps", "--all", "--quiet", "--filter", f"ancestor={image}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


def test_base_files_are_found_in_image(make_image: MakeImage):
    base = from_image(make_image("plain", FILES), TARGETS)
    assert base.files == {target: target.encode() for target in TARGETS}
    assert base.package == PurePosixPath("/", SITE, "vllm")


def test_named_folder_is_not_searched_for(make_image: MakeImage):
    odd = {path.replace(SITE, "srv/engine"): content for path, content in FILES.items()}
    image = make_image("odd", odd)
    with pytest.raises(EnvironmentUnfitError, match="no vllm package in the usual places"):
        from_image(image, TARGETS)
    assert from_image(image, TARGETS, package=PurePosixPath("/srv/engine/vllm")).files[TARGETS[0]]


def test_two_packages_in_image_are_refused(make_image: MakeImage):
    second = {path.replace("python3.12", "python3.11"): content for path, content in FILES.items()}
    with pytest.raises(EnvironmentUnfitError, match=r"python3\.12.* and .*python3\.11"):
        from_image(make_image("two", FILES | second), TARGETS)


def test_missing_base_file_is_refused(make_image: MakeImage):
    files = {path: content for path, content in FILES.items() if "eagle" not in path}
    with pytest.raises(EnvironmentUnfitError, match="has no vllm/v1/spec_decode/eagle"):
        from_image(make_image("partial", files), TARGETS)


def test_oversized_module_is_not_read(make_image: MakeImage):
    with pytest.raises(IntegrityError, match="larger than any module of vLLM"):
        from_image(make_image("huge", FILES | {f"{SITE}/{TARGETS[0]}": bytes(5 << 20)}), TARGETS)


def test_absent_image_is_refused():
    with pytest.raises(EnvironmentUnfitError, match="is not on this host"):
        from_image("deckard-test/nowhere:1", TARGETS)
