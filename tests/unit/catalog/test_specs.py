"""Texts that the specs accept: names, addresses, paths, sizes and images."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from deckard_deploy.catalog import specs
from deckard_deploy.catalog.specs import Container, rank_count

DIGEST = "sha256:" + "a" * 64
ACCEPTED: list[tuple[Any, list[Any]]] = [
    (specs.Name, ["a", "gemma4-31b", "v0.19_1", "a" * 63]),
    (specs.EnvironmentName, ["A", "_x1", "VLLM_PORT"]),
    (specs.IpAddress, ["127.0.0.1", "::1", "0.0.0.0"]),
    (specs.Port, [1, 65535]),
    (specs.AbsolutePath, ["/", "/srv/my files"]),
    (specs.HomePath, ["~/models", "/models"]),
    (specs.ShmSize, ["512m", "16g"]),
    (specs.Restart, ["no", "on-failure", "on-failure:2", "unless-stopped"]),
    (specs.ImageReference, ["busybox", "vllm/vllm-openai:v0.19.1", f"localhost:5000/a/b@{DIGEST}"]),
]
REFUSED: list[tuple[Any, list[Any]]] = [
    (specs.Name, ["", "A", "-a", "a/b", "a" * 64, "a\n"]),
    (specs.EnvironmentName, ["", "1x", "a-b", "A=B", "a\n"]),
    (specs.IpAddress, ["localhost", "127.0.0.1:80", "256.0.0.1", ""]),
    (specs.Port, [0, 65536, "8000", True]),
    (specs.AbsolutePath, ["srv", "~/x", "/a:b", "/a\nb"]),
    (specs.HomePath, ["~x/y", "models"]),
    (specs.ShmSize, ["0m", "16", "16 g", "16G"]),
    (specs.Restart, ["on-failure:", "on-failure:-1", "never"]),
    (specs.ImageReference, ["", "Vllm/x", "a:b:c", "a@sha256:abc", "https://x/y", "a b"]),
]


def values(table: list[tuple[Any, list[Any]]]) -> list[tuple[Any, Any]]:
    pairs = []
    for kind, each in table:
        pairs += [(kind, value) for value in each]
    return pairs


@pytest.mark.parametrize(("kind", "value"), values(ACCEPTED))
def test_value_is_accepted(kind: Any, value: Any):
    assert TypeAdapter(kind).validate_python(value, strict=True) == value


@pytest.mark.parametrize(("kind", "value"), values(REFUSED))
def test_value_is_refused(kind: Any, value: Any):
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value, strict=True)


@pytest.mark.parametrize(
    ("serve", "ranks"),
    [
        ({}, 1),
        ({"tensor-parallel-size": 2}, 2),
        ({"tensor-parallel-size": 2, "pipeline-parallel-size": 3, "data-parallel-size": 4}, 24),
        ({"tensor-parallel-size": "2"}, 1),
        ({"max-num-seqs": 8}, 1),
    ],
)
def test_ranks_are_product_of_parallel_sizes(serve: dict[str, Any], ranks: int):
    assert rank_count(serve) == ranks


def test_spec_is_closed_and_frozen():
    with pytest.raises(ValidationError, match="surprise"):
        Container.model_validate({"surprise": 1})
    with pytest.raises(ValidationError, match="frozen"):
        Container().network = "host"  # type: ignore[misc]
