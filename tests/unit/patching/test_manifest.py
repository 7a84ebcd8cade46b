"""The committed patch set, and what makes a manifest one."""

import hashlib
import re
from pathlib import Path

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.patching.manifest import PatchSet, load_patch_set, needed, patch_set_names
from deckard_deploy.patching.release_hashes import looks_like, release_hashes, releases_of
from tests.support.patch_set import World

SERVING = "vllm/entrypoints/openai/chat_completion/serving.py"


@pytest.fixture(scope="module")
def ours() -> PatchSet:
    return load_patch_set("vllm-0.19.1")


def test_every_diff_of_the_committed_set_is_clean_and_for_its_target(ours):
    assert [ours.diff(patch).target for patch in ours.patches] == [patch.target for patch in ours.patches]


def test_the_bases_are_the_files_of_the_release(ours):
    assert [patch.base_sha256 for patch in ours.patches] == [
        release_hashes()["0.19.1"][patch.target] for patch in ours.patches
    ]


def test_no_added_line_of_a_patch_has_trailing_space_or_a_tab(ours):
    for patch in ours.patches:
        added = [line for line in ours.diff_file(patch).read_text().splitlines() if line.startswith("+")]
        assert [line for line in added if line != line.rstrip() or "\t" in line] == []


@pytest.mark.parametrize(
    ("drafter", "quantization", "names"),
    [
        (False, "none", {"serving_chat"}),
        (True, "none", {"eagle", "serving_chat"}),
        (False, "nvfp4", {"serving_chat", "modelopt"}),
        (False, "nvfp4_awq", {"serving_chat", "modelopt"}),
        (True, "nvfp4_svd", {"eagle", "serving_chat", "modelopt"}),
    ],
)
def test_a_plan_gets_the_patches_that_it_needs(ours, drafter, quantization, names):
    assert {patch.name for patch in needed(ours, drafter=drafter, quantization=quantization)} == names


def test_every_quantization_of_the_catalog_is_one_that_needs_are_told_for(ours):
    for name in listing.names("models"):
        needed(ours, drafter=False, quantization=library.model(name).quantization)
    assert {library.model(name).quantization for name in listing.names("models")} <= {
        "none",
        *next(patch for patch in ours.patches if patch.name == "modelopt").needed_when.quantization,
    }


def test_every_patch_set_that_an_engine_names_exists():
    named = {library.engine(name).patch_set for name in listing.names("engines")} - {None}
    assert named <= set(patch_set_names())


def test_an_unknown_set_is_answered_with_the_nearest():
    with pytest.raises(BadInputError, match=r"did you mean 'vllm-0.19.1'"):
        load_patch_set("vllm-0.19.0")


@pytest.mark.parametrize("name", ["../patches/vllm-0.19.1", "", ".", "vllm-0.19.1/"])
def test_a_name_is_no_path(name):
    with pytest.raises(BadInputError):
        load_patch_set(name)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vllm/v1/spec_decode/eagle.py", "/etc/passwd"),
        ("vllm/v1/spec_decode/eagle.py", "vllm/../../x.py"),
        ("name: eagle", "name: ../eagle"),
        ("drafter: true", "drafter: true\n      sometimes: true"),
        ("quantization: [nvfp4_awq]", "quantization: [awq]"),
        ("0.31.0", "soon"),
        ('base_sha256: "', 'base_sha256: "x'),
        ("    reason: because\n", ""),
    ],
)
def test_a_manifest_with_anything_odd_is_refused(world: World, old, new):
    path = world.root / "vllm-0.19.1/manifest.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(BadInputError, match=r"manifest\.yaml:"):
        load_patch_set("vllm-0.19.1", world.root)


def test_a_diff_that_is_not_text_is_refused(world: World):
    (world.root / "vllm-0.19.1/eagle.patch").write_bytes(b"\xff\xfe")
    with pytest.raises(IntegrityError):
        world.patch_set.diff(world.patch_set.patches[0])


def test_a_file_is_known_by_its_hash():
    digest = release_hashes()["0.20.1"][SERVING]
    assert releases_of(SERVING, digest) == ("0.20.1", "0.20.2")
    assert looks_like(SERVING, digest) == "the file of vLLM 0.20.1 or 0.20.2"
    assert "no release that is known" in looks_like(SERVING, hashlib.sha256(b"").hexdigest())
    assert looks_like(
        "vllm/v1/spec_decode/eagle.py", release_hashes()["0.33.0"]["vllm/v1/spec_decode/eagle.py"]
    ) == ("the file of vLLM 0.20.0 up to 0.33.0")


def test_the_documented_table_is_about_these_diffs(ours):
    text = (Path(__file__).parents[3] / "docs/patches.md").read_text()
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| (vLLM|0\.)", line)]
    assert table[0] == ["vLLM", *(patch.name for patch in ours.patches)]
    for release, *cells in table[1:]:
        for patch, cell in zip(ours.patches, cells, strict=True):
            if "hunk" in cell:
                assert f"of {len(ours.diff(patch).hunks)}," in cell, (release, patch.name)
            elif "upstream" in cell:
                assert cell.endswith(f"since {patch.not_needed_from}")
            else:
                assert cell == "applies"
                assert release_hashes()[release][patch.target] == patch.base_sha256
