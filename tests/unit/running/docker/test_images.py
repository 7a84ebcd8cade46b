"""Events of a pull; tests/e2e/test_docker_runtime.py pulls for real."""

import pytest

from deckard_deploy.errors import EnvironmentUnfitError, NetworkError
from deckard_deploy.running.docker.images import _apply

IMAGE = "vllm/vllm-openai:v0.19.1"


def applied(*events: dict[str, object]) -> dict[str, tuple[int, int]]:
    layers: dict[str, tuple[int, int]] = {}
    for event in events:
        _apply(event, layers, IMAGE)
    return layers


def downloading(layer: str, current: int, total: int) -> dict[str, object]:
    return {"status": "Downloading", "id": layer, "progressDetail": {"current": current, "total": total}}


def test_bytes_are_counted_by_layer():
    assert applied(downloading("a", 1, 10), downloading("b", 2, 20), downloading("a", 5, 10)) == {
        "a": (5, 10),
        "b": (2, 20),
    }


@pytest.mark.parametrize("status", ["Download complete", "Pull complete"])
def test_complete_layer_has_all_bytes(status: str):
    assert applied(downloading("a", 1, 10), {"status": status, "id": "a"}) == {"a": (10, 10)}


def test_layer_that_was_here_is_not_counted():
    assert applied({"status": "Already exists", "id": "a"}, {"status": "Pull complete", "id": "a"}) == {}


def test_event_without_numbers_is_ignored():
    assert applied({"status": "Downloading", "id": "a"}, {"progressDetail": None}, {}) == {}


def test_full_disk_is_not_the_networks_fault():
    with pytest.raises(EnvironmentUnfitError, match=f"no space left for {IMAGE}"):
        applied({"error": "failed to register layer: write /x: no space left on device"})


def test_error_of_the_registry_is_a_network_error():
    with pytest.raises(NetworkError, match=f"{IMAGE} cannot be pulled: denied"):
        applied({"error": "denied"})
