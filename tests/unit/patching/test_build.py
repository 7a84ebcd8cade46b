"""A build gives exactly the files that the manifest promises, or nothing."""

import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.base_files import BaseFiles
from deckard_deploy.patching.build import Verdict, build, check, check_release, import_built
from deckard_deploy.patching.manifest import needed
from deckard_deploy.patching.overlay import overlay
from tests.support.patch_set import NAMES, NEW, OLD, World, digest

EAGLE = NAMES["eagle"]


def with_file(world: World, target: str, text: str) -> BaseFiles:
    return BaseFiles(files={**world.base.files, target: text.encode()}, origin="the test")


def test_a_build_writes_the_promised_files(world, tmp_path):
    built = build(world.patch_set, world.base, tmp_path / "out")
    assert [(patch.name, patch.sha256) for patch in built] == [(n, digest(NEW[t])) for n, t in NAMES.items()]
    assert [patch.path.read_text() for patch in built] == list(NEW.values())
    assert built[0].module == "vllm.v1.spec_decode.eagle"


def test_only_what_the_plan_needs_is_built(world, tmp_path):
    chosen = needed(world.patch_set, drafter=False, quantization="nvfp4_awq")
    assert [patch.name for patch in build(world.patch_set, world.base, tmp_path / "out", chosen)] == [
        "modelopt"
    ]
    assert not (tmp_path / "out" / "eagle_patched.py").exists()


def test_a_second_build_leaves_the_files_that_a_container_has_mounted(world, tmp_path):
    first = [patch.path.stat() for patch in build(world.patch_set, world.base, tmp_path / "out")]
    again = [patch.path.stat() for patch in build(world.patch_set, world.base, tmp_path / "out")]
    assert [stat.st_ino for stat in first] == [stat.st_ino for stat in again]


def test_a_damaged_result_is_built_anew(world, tmp_path):
    path = build(world.patch_set, world.base, tmp_path / "out")[0].path
    path.write_text("something else\n")
    build(world.patch_set, world.base, tmp_path / "out")
    assert path.read_text() == NEW[EAGLE]
    assert {entry.name for entry in path.parent.iterdir()} == {"eagle_patched.py", "modelopt_patched.py"}


@pytest.mark.parametrize("change", ["# edited\n", " ", "\n", "\r\n", "\ufeff"])
def test_a_base_that_differs_anywhere_is_refused_and_nothing_is_written(world, tmp_path, change):
    with pytest.raises(
        IntegrityError, match=r"eagle\.py in the test is a file of no release that is known here"
    ):
        build(world.patch_set, with_file(world, EAGLE, OLD[EAGLE] + change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_last_base_of_several_stops_the_first_from_being_written(world, tmp_path):
    with pytest.raises(IntegrityError, match="modelopt"):
        build(world.patch_set, with_file(world, NAMES["modelopt"], "x = 1\n"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_result_with_another_hash_than_promised_is_refused(world, tmp_path):
    patch_file = world.root / "vllm-0.19.1/eagle.patch"
    patch_file.write_text(patch_file.read_text().replace("'ours'", "'mine'"))
    with pytest.raises(IntegrityError, match="not what its manifest says"):
        build(world.patch_set, world.base, tmp_path / "out")


def test_a_result_that_is_no_python_is_refused(world, tmp_path):
    world.rewrite("eagle", "def propose(:\n")
    with pytest.raises(IntegrityError, match="does not compile after patch eagle"):
        build(world.patch_set, world.base, tmp_path / "out")


def test_a_diff_of_another_file_than_the_manifest_says_is_refused(world, tmp_path):
    folder = world.root / "vllm-0.19.1"
    (folder / "eagle.patch").write_text((folder / "modelopt.patch").read_text())
    with pytest.raises(IntegrityError, match=r"and the manifest says vllm/v1/spec_decode/eagle\.py"):
        build(world.patch_set, world.base, tmp_path / "out")


def test_a_missing_diff_is_refused(world, tmp_path):
    (world.root / "vllm-0.19.1/eagle.patch").unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        build(world.patch_set, world.base, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "verdict", "fits", "detail"),
    [
        (OLD[EAGLE], Verdict.APPLIES, True, ""),
        (NEW[EAGLE], Verdict.APPLIED, True, ""),
        (
            OLD[EAGLE] + "# more\n",
            Verdict.OTHER_BASE,
            False,
            "every hunk fits, but the rest of the file is another",
        ),
        ("def propose():\n    pass\n", Verdict.CONFLICTS, False, "hunk 1 of 1, line 2"),
    ],
)
def test_check_tells_what_a_patch_is_to_a_file(world, text, verdict, fits, detail):
    found = check(world.patch_set, with_file(world, EAGLE, text), drafter=True, quantization="none")
    assert (found[0].verdict, found[0].fits, found[0].detail) == (verdict, fits, detail)
    assert found[1].verdict is Verdict.NEEDLESS


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("0.19.1", Verdict.APPLIES),
        ("0.30.9", Verdict.APPLIES),
        ("0.31.0", Verdict.UPSTREAM),
        ("0.100.0", Verdict.UPSTREAM),
    ],
)
def test_a_release_that_has_the_change_needs_no_patch(world, version, verdict):
    eagle, modelopt = check_release(world.patch_set, world.base, version)
    assert eagle.verdict is verdict
    assert modelopt.verdict is Verdict.APPLIES  # no release has it


def test_what_was_built_imports_in_a_real_python(world, tmp_path):
    built = build(world.patch_set, world.base, tmp_path / "out")
    import_built(built, Path(sys.executable), overlay(world.package, built, tmp_path / "overlay"))


def test_what_does_not_import_is_refused_with_the_reason(world, tmp_path):
    world.rewrite("eagle", "import vllm.v1.spec_decode.qwen3_dflash\n")
    built = build(world.patch_set, world.base, tmp_path / "out")
    with pytest.raises(IntegrityError, match=r"No module named 'vllm\.v1\.spec_decode\.qwen3_dflash'"):
        import_built(built, Path(sys.executable), overlay(world.package, built, tmp_path / "overlay"))
