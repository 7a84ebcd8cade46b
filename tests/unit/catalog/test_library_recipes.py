"""Recipes of `quantize`: the built-in ones, and a file of the user's own."""

from pathlib import Path

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.specs import RecipeSpec
from deckard_deploy.errors import BadInputError

OWN = """\
name: mine
description: a recipe of my own
method: awq_lite
alpha_step: 0.25
block_size: 16
exclude: ["*lm_head*", "*vision_tower*", "*o_proj*"]
kv_cache: none
samples: 64
sequence_length: 256
seed: 3
"""


def own(tmp_path: Path, text: str = OWN) -> RecipeSpec:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return library.recipe_from_file(path)


def test_recipes_of_the_card_are_there():
    assert listing.names("recipes") == ["awq-full", "awq-lite", "nvfp4", "svdquant"]
    full, lite = library.recipe("awq-full"), library.recipe("awq-lite")
    assert (full.alpha_step, full.samples, lite.alpha_step, lite.samples) == (0.1, 2048, 0.1, 512)
    assert library.recipe("svdquant").lowrank == 32
    assert [name for name in listing.names("recipes") if not library.recipe(name).needs_cuda] == ["nvfp4"]


@pytest.mark.parametrize("name", listing.names("recipes"))
def test_every_number_of_a_recipe_has_a_source(name: str):
    lines = library.source("recipes", name).splitlines()
    for number, line in enumerate(lines):
        key = line.partition(":")[0]
        if key in {"name", "description", "seed"} or line.startswith("#"):
            continue
        near = " ".join([line, *lines[max(0, number - 4) : number]])
        assert "#" in near, line


def test_own_recipe_is_a_file(tmp_path: Path):
    recipe = own(tmp_path)
    assert (recipe.alpha_step, recipe.exclude[-1], recipe.needs_cuda) == (0.25, "*o_proj*", True)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("alpha_step: 0.25", "alpha_stepp: 0.25", "unknown key; did you mean 'alpha_step'?"),
        ("alpha_step: 0.25\n", "", "awq_lite needs alpha_step"),
        ("alpha_step: 0.25", "alpha_step: 0", "greater than 0"),
        ("alpha_step: 0.25", "alpha_step: 0.25\nlowrank: 32", "lowrank is a setting of svdquant"),
        ("method: awq_lite", "method: gptq", "'max', 'awq_lite', 'awq_full' or 'svdquant'"),
        ("block_size: 16", "block_size: 32", "16"),
        ("kv_cache: none", "kv_cache: int8", "none"),
        ('"*o_proj*"', '"$(rm)"', "a pattern of module names"),
        ("samples: 64", "samples: 0", "greater than or equal to 1"),
        ("samples: 64", "samples: many", "a whole number was expected"),
        ("seed: 3", "", "'seed' is required"),
        (OWN, "- a list", "a mapping"),
    ],
)
def test_wrong_recipe_is_one_line(tmp_path: Path, before: str, after: str, words: str):
    with pytest.raises(BadInputError) as caught:
        own(tmp_path, OWN.replace(before, after))
    assert words in caught.value.message
    assert "mine.yaml:" in caught.value.message
    assert "\n" not in caught.value.message


def test_unknown_recipe_names_the_known_ones():
    with pytest.raises(BadInputError, match="no recipe named 'awq'; ") as caught:
        library.recipe("awq")
    assert caught.value.hint == "deckard-deploy quantize --explain"
