"""The overlay is the package with the patched files; the package itself does not change."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.patching.build import build
from deckard_deploy.patching.overlay import create_overlay
from tests.support.patch_set import NEW, OLD

SHOW = """
import json
import vllm.envs, vllm.v1.engine
from vllm.model_executor.layers.quantization import modelopt
from vllm.v1.spec_decode import eagle
print(json.dumps([eagle.propose(), modelopt.load(), vllm.envs.NAME, vllm.__file__]))
"""


def imported(first_on_path: Path) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={"PYTHONPATH": str(first_on_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))


def test_python_imports_patched_and_original_files(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    tree = create_overlay(on_disk.package, built, tmp_path / "overlay")
    assert imported(tree) == ["ours", ["NVFP4_AWQ"], "vllm", str(tree / "vllm/__init__.py")]
    assert imported(on_disk.package.parent)[0] == "theirs"


def test_overlay_does_not_change_package(on_disk, tmp_path):
    before = {path: path.read_bytes() for path in on_disk.package.rglob("*.py")}
    create_overlay(
        on_disk.package, build(on_disk.patch_set, on_disk.base, tmp_path / "out"), tmp_path / "overlay"
    )
    assert {path: path.read_bytes() for path in on_disk.package.rglob("*.py")} == before
    assert {target: (on_disk.package.parent / target).read_text() for target in OLD} == OLD


def test_overlay_links_all_but_patched_files(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    tree = create_overlay(on_disk.package, built, tmp_path / "overlay")
    found = (tree / "vllm").rglob("*")
    real = {str(path.relative_to(tree)) for path in found if path.is_file() and not path.is_symlink()}
    # rglob does not follow links, so it finds only the written files.
    assert real == set(NEW)
    assert (tree / "vllm/v1/engine").is_symlink()


def test_second_overlay_replaces_first(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    create_overlay(on_disk.package, built, tmp_path / "overlay")
    (on_disk.package / "added.py").write_text("")
    tree = create_overlay(on_disk.package, built[1:], tmp_path / "overlay")
    assert imported(tree)[:2] == ["theirs", ["NVFP4_AWQ"]]
    assert (tree / "vllm/added.py").is_symlink()
    assert {entry.name for entry in tree.iterdir()} == {"vllm", "made-of", ".lock"}


def test_same_overlay_keeps_its_tree(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    before = (create_overlay(on_disk.package, built, tmp_path / "overlay") / "vllm").stat().st_ino
    assert (create_overlay(on_disk.package, built, tmp_path / "overlay") / "vllm").stat().st_ino == before


def test_damaged_overlay_is_created_again(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    tree = create_overlay(on_disk.package, built, tmp_path / "overlay")
    (tree / built[0].target).write_text("something else\n")
    assert imported(create_overlay(on_disk.package, built, tmp_path / "overlay"))[0] == "ours"


@pytest.mark.parametrize("place", ["", "v1", "v1/spec_decode"])
def test_overlay_links_new_package_files(on_disk, tmp_path, place):
    """A file of another build that was installed over the first, and a link that was removed."""
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    tree = create_overlay(on_disk.package, built, tmp_path / "overlay")
    (on_disk.package / place / "_C.abi3.so").touch()
    create_overlay(on_disk.package, built, tmp_path / "overlay")
    link = tree / "vllm" / place / "_C.abi3.so"
    assert link.is_symlink()
    link.unlink()
    create_overlay(on_disk.package, built, tmp_path / "overlay")
    assert link.is_symlink()


def test_concurrent_overlays_give_one_tree(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    with ThreadPoolExecutor(8) as pool:
        trees = set(
            pool.map(lambda _: create_overlay(on_disk.package, built, tmp_path / "overlay"), range(24))
        )
    assert imported(trees.pop())[0] == "ours"


def test_replacing_overlay_keeps_link_targets(on_disk, tmp_path):
    create_overlay(
        on_disk.package, build(on_disk.patch_set, on_disk.base, tmp_path / "out"), tmp_path / "overlay"
    )
    create_overlay(on_disk.package, (), tmp_path / "overlay")
    assert (on_disk.package / "v1/engine/__init__.py").is_file()


def test_overlay_does_not_link_bytecode(on_disk, tmp_path):
    cache = on_disk.package / "v1/spec_decode/__pycache__"
    cache.mkdir()
    (cache / "eagle.cpython-311.pyc").write_bytes(b"old")
    tree = create_overlay(
        on_disk.package, build(on_disk.patch_set, on_disk.base, tmp_path / "out"), tmp_path / "overlay"
    )
    assert not (tree / "vllm/v1/spec_decode/__pycache__").exists()


def test_overlay_of_a_non_package_is_refused(tmp_path):
    with pytest.raises(EnvironmentUnfitError, match="is not the folder of a Python package"):
        create_overlay(tmp_path, (), tmp_path / "overlay")
