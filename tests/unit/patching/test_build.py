"""A build writes exactly the files of the manifest, or nothing."""

import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.base_files import BaseFiles
from deckard_deploy.patching.build import PatchState, build, check, check_release, import_built
from deckard_deploy.patching.manifest import needed_patches
from deckard_deploy.patching.overlay import create_overlay
from tests.support.patch_set import NAMES, NEW, OLD, PatchSetOnDisk, digest

EAGLE = NAMES["eagle"]


def with_file(on_disk: PatchSetOnDisk, target: str, text: str) -> BaseFiles:
    return BaseFiles(files={**on_disk.base.files, target: text.encode()}, origin="the test")


def test_build_writes_files_of_the_manifest(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    assert [(patch.name, patch.sha256) for patch in built] == [(n, digest(NEW[t])) for n, t in NAMES.items()]
    assert [patch.path.read_text() for patch in built] == list(NEW.values())
    assert built[0].module == "vllm.v1.spec_decode.eagle"


def test_build_writes_only_needed_patches(on_disk, tmp_path):
    chosen = needed_patches(on_disk.patch_set, drafter=False, quantization="nvfp4_awq")
    assert [patch.name for patch in build(on_disk.patch_set, on_disk.base, tmp_path / "out", chosen)] == [
        "modelopt"
    ]
    assert not (tmp_path / "out" / "eagle_patched.py").exists()


def test_second_build_keeps_inodes_of_files(on_disk, tmp_path):
    first = [patch.path.stat() for patch in build(on_disk.patch_set, on_disk.base, tmp_path / "out")]
    again = [patch.path.stat() for patch in build(on_disk.patch_set, on_disk.base, tmp_path / "out")]
    assert [stat.st_ino for stat in first] == [stat.st_ino for stat in again]


def test_damaged_result_is_built_again(on_disk, tmp_path):
    path = build(on_disk.patch_set, on_disk.base, tmp_path / "out")[0].path
    path.write_text("something else\n")
    build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    assert path.read_text() == NEW[EAGLE]
    assert {entry.name for entry in path.parent.iterdir()} == {"eagle_patched.py", "modelopt_patched.py"}


@pytest.mark.parametrize("change", ["# edited\n", " ", "\n", "\r\n", "\ufeff"])
def test_build_refuses_changed_base_and_writes_nothing(on_disk, tmp_path, change):
    with pytest.raises(
        IntegrityError, match=r"eagle\.py in the test is a file of no release that is known here"
    ):
        build(on_disk.patch_set, with_file(on_disk, EAGLE, OLD[EAGLE] + change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_wrong_base_stops_all_writes(on_disk, tmp_path):
    with pytest.raises(IntegrityError, match="modelopt"):
        build(on_disk.patch_set, with_file(on_disk, NAMES["modelopt"], "x = 1\n"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_result_with_other_hash_is_refused(on_disk, tmp_path):
    patch_file = on_disk.root / "vllm-0.19.1/eagle.patch"
    patch_file.write_text(patch_file.read_text().replace("'ours'", "'mine'"))
    with pytest.raises(IntegrityError, match="not what its manifest says"):
        build(on_disk.patch_set, on_disk.base, tmp_path / "out")


def test_result_that_does_not_compile_is_refused(on_disk, tmp_path):
    on_disk.rewrite("eagle", "def propose(:\n")
    with pytest.raises(IntegrityError, match="does not compile after patch eagle"):
        build(on_disk.patch_set, on_disk.base, tmp_path / "out")


def test_diff_of_other_target_is_refused(on_disk, tmp_path):
    folder = on_disk.root / "vllm-0.19.1"
    (folder / "eagle.patch").write_text((folder / "modelopt.patch").read_text())
    with pytest.raises(IntegrityError, match=r"and the manifest says vllm/v1/spec_decode/eagle\.py"):
        build(on_disk.patch_set, on_disk.base, tmp_path / "out")


def test_missing_diff_is_refused(on_disk, tmp_path):
    (on_disk.root / "vllm-0.19.1/eagle.patch").unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        build(on_disk.patch_set, on_disk.base, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "verdict", "fits", "detail"),
    [
        (OLD[EAGLE], PatchState.APPLIES, True, ""),
        (NEW[EAGLE], PatchState.APPLIED, True, ""),
        (
            OLD[EAGLE] + "# more\n",
            PatchState.OTHER_BASE,
            False,
            "every hunk fits, but the rest of the file is another",
        ),
        ("def propose():\n    pass\n", PatchState.CONFLICTS, False, "hunk 1 of 1, line 2"),
    ],
)
def test_check_gives_state_of_each_patch(on_disk, text, verdict, fits, detail):
    found = check(on_disk.patch_set, with_file(on_disk, EAGLE, text), drafter=True, quantization="none")
    assert (found[0].verdict, found[0].fits, found[0].detail) == (verdict, fits, detail)
    assert found[1].verdict is PatchState.NOT_NEEDED


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("0.19.1", PatchState.APPLIES),
        ("0.30.9", PatchState.APPLIES),
        ("0.31.0", PatchState.UPSTREAM),
        ("0.100.0", PatchState.UPSTREAM),
    ],
)
def test_release_with_the_change_needs_no_patch(on_disk, version, verdict):
    eagle, modelopt = check_release(on_disk.patch_set, on_disk.base, version)
    assert eagle.verdict is verdict
    assert modelopt.verdict is PatchState.APPLIES  # no release has it


def test_built_files_import_in_real_python(on_disk, tmp_path):
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    import_built(built, Path(sys.executable), create_overlay(on_disk.package, built, tmp_path / "overlay"))


def test_failing_import_is_refused_with_reason(on_disk, tmp_path):
    on_disk.rewrite("eagle", "import vllm.v1.spec_decode.qwen3_dflash\n")
    built = build(on_disk.patch_set, on_disk.base, tmp_path / "out")
    with pytest.raises(IntegrityError, match=r"No module named 'vllm\.v1\.spec_decode\.qwen3_dflash'"):
        import_built(
            built, Path(sys.executable), create_overlay(on_disk.package, built, tmp_path / "overlay")
        )
