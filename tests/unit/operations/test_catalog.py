"""The entries of the catalog as JSON and as YAML."""

import json

import pytest

from deckard_deploy.catalog import listing
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.catalog import Kind, engine_abilities, entry_json, entry_source

KINDS: tuple[Kind, ...] = ("profiles", "models", "engines")


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_has_json_and_source(kind: Kind) -> None:
    for name in listing.names(kind):
        assert json.loads(entry_json(kind, name))["name"] == name
        assert entry_source(kind, name)


@pytest.mark.parametrize("entry", [entry_json, entry_source])
def test_unknown_entry_is_refused(entry) -> None:
    with pytest.raises(BadInputError, match="did you mean 'spark'"):
        entry("profiles", "sparc")


def test_abilities_name_patches_or_plugin() -> None:
    lines = engine_abilities()
    assert [line.partition(":")[0] for line in lines] == listing.names("engines")
    assert any(line.endswith("; patches vllm-0.19.1") for line in lines)
    assert any(line.endswith("; plugin nvfp4-awq") for line in lines)
