"""The candidates of `tune`: changes that the release has, and none that changes nothing."""

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import Resolved, resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.candidates import candidates


def resolved(profile: str, **choice: object) -> Resolved:
    return resolve(Deployment.model_validate(choice), profile=library.profile(profile))


def settings(profile: str, goal, **choice: object) -> set[str]:
    return {setting for each in candidates(resolved(profile, **choice), goal) for setting in each}


def test_gpu_has_backends_and_drafted_tokens() -> None:
    found = settings("h200", "interactive")
    assert {"drafter_tokens=2", "drafter_tokens=7", "drafter=none", "linear-backend=marlin"} <= found
    assert "drafter_tokens=4" not in found  # as it is already
    assert "performance-mode=interactivity" in found
    assert "performance-mode=throughput" in settings("h200", "throughput")


def test_present_value_is_no_candidate() -> None:
    assert "kv-cache-dtype=fp8" in settings("h200", "agents")
    assert "kv-cache-dtype=fp8" not in settings("h200", "agents", serve={"kv-cache-dtype": "fp8"})


def test_release_without_the_option_is_not_asked_for_it() -> None:
    found = settings("h200", "interactive", engine="vllm-0.19.1")
    assert not {setting for setting in found if setting.startswith("linear-backend")}


def test_without_a_drafter_each_one_is_tried() -> None:
    found = settings("cpu", "interactive", engine="vllm-0.32.0-cpu")
    assert {"drafter=tiny-assistant", "drafter=tiny-ngram", "engine=vllm-0.19.1-cpu"} <= found
    assert "drafter_tokens=4" not in found


def test_engines_are_of_the_same_kind() -> None:
    engines = {setting for setting in settings("spark", "interactive") if setting.startswith("engine=")}
    assert "engine=vllm-0.19.1" in engines
    assert not {name for name in engines if "cpu" in name or "cuda" in name}
