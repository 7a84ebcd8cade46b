"""The committed patch set, and the validation of manifests."""

import re
from pathlib import Path

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.patching.manifest import PatchSet, load_patch_set, needed_patches, patch_set_names
from deckard_deploy.patching.release_hashes import release_hashes
from tests.support.patch_set import PatchSetOnDisk


@pytest.fixture(scope="module")
def committed() -> PatchSet:
    return load_patch_set("vllm-0.19.1")


def test_committed_diffs_match_their_targets(committed):
    assert [committed.diff(patch).target for patch in committed.patches] == [
        patch.target for patch in committed.patches
    ]


def test_base_hashes_are_those_of_the_release(committed):
    assert [patch.base_sha256 for patch in committed.patches] == [
        release_hashes()["0.19.1"][patch.target] for patch in committed.patches
    ]


def test_added_lines_have_no_trailing_space_or_tab(committed):
    for patch in committed.patches:
        added = [line for line in committed.diff_file(patch).read_text().splitlines() if line.startswith("+")]
        assert [line for line in added if line != line.rstrip() or "\t" in line] == []


@pytest.mark.parametrize(
    ("drafter", "quantization", "names"),
    [
        (False, "none", {"serving_chat", "reasoning"}),
        (True, "none", {"eagle", "serving_chat", "reasoning"}),
        (False, "nvfp4", {"serving_chat", "reasoning", "modelopt"}),
        (False, "nvfp4_awq", {"serving_chat", "reasoning", "modelopt"}),
        (True, "nvfp4_svd", {"eagle", "serving_chat", "reasoning", "modelopt"}),
    ],
)
def test_plan_gets_the_patches_it_needs(committed, drafter, quantization, names):
    assert {
        patch.name for patch in needed_patches(committed, drafter=drafter, quantization=quantization)
    } == names


def test_catalog_quantizations_are_known_to_patches(committed):
    for name in listing.names("models"):
        needed_patches(committed, drafter=False, quantization=library.model(name).quantization)
    assert {library.model(name).quantization for name in listing.names("models")} <= {
        "none",
        *next(patch for patch in committed.patches if patch.name == "modelopt").needed_when.quantization,
    }


def test_patch_sets_of_engines_exist():
    named = {library.engine(name).patch_set for name in listing.names("engines")} - {None}
    assert named <= set(patch_set_names())


def test_unknown_set_suggests_the_nearest():
    with pytest.raises(BadInputError, match=r"did you mean 'vllm-0.19.1'"):
        load_patch_set("vllm-0.19.0")


@pytest.mark.parametrize("name", ["../patches/vllm-0.19.1", "", ".", "vllm-0.19.1/"])
def test_set_name_is_not_a_path(name):
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
def test_invalid_manifest_is_refused(on_disk: PatchSetOnDisk, old, new):
    path = on_disk.root / "vllm-0.19.1/manifest.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(BadInputError, match=r"manifest\.yaml:"):
        load_patch_set("vllm-0.19.1", on_disk.root)


def test_binary_diff_is_refused(on_disk: PatchSetOnDisk):
    (on_disk.root / "vllm-0.19.1/eagle.patch").write_bytes(b"\xff\xfe")
    with pytest.raises(IntegrityError):
        on_disk.patch_set.diff(on_disk.patch_set.patches[0])


def test_documented_table_matches_diffs(committed):
    text = (Path(__file__).parents[3] / "docs/patches.md").read_text()
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| (vLLM|0\.)", line)]
    assert table[0] == ["vLLM", *(patch.name for patch in committed.patches)]
    for release, *cells in table[1:]:
        for patch, cell in zip(committed.patches, cells, strict=True):
            if "hunk" in cell:
                assert f"of {len(committed.diff(patch).hunks)}," in cell, (release, patch.name)
            elif "no such file" in cell:
                assert patch.target not in release_hashes()[release]
            elif "upstream" in cell:
                assert cell.endswith(f"since {patch.not_needed_from}")
            else:
                assert cell == "applies"
                assert release_hashes()[release][patch.target] == patch.base_sha256
