"""Names and descriptions of the catalog, read without YAML."""

import pytest
import yaml

from deckard_deploy.catalog import listing
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

KINDS: tuple[listing.Kind, ...] = ("profiles", "models", "engines", "compat", "recipes")


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_sorted_and_not_empty(kind: listing.Kind):
    names = listing.names(kind)
    assert names == sorted(names)
    assert names


@pytest.mark.parametrize("kind", KINDS)
def test_description_is_the_one_that_yaml_reads(kind: listing.Kind):
    for entry in listing.entries(kind):
        data = yaml.safe_load((catalog_dir() / kind / f"{entry.name}.yaml").read_text(encoding="utf-8"))
        assert entry.description == data["description"]


def test_file_without_description_is_refused(tmp_path):
    path = tmp_path / "box.yaml"
    path.write_text("name: box\n")
    with pytest.raises(BadInputError, match=r"box\.yaml: 'description' is required"):
        listing._entry(path)
