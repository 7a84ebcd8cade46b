"""The changes between two releases' schemas."""

from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.release_difference import compared, used
from deckard_deploy.catalog.translation import ReleaseChanges, release_changes


def lines(old: str, new: str, answers: ReleaseChanges) -> dict[str, bool]:
    return {line: answered for answered, line in compared(option_schema(old), option_schema(new), answers)}


def test_answers_of_0_33_cover_what_profiles_use() -> None:
    found = lines("vllm-0.19.1", "vllm-0.33.0", release_changes("vllm-0.33.0"))
    assert [line for line, answered in found.items() if not answered] == []
    without = lines("vllm-0.19.1", "vllm-0.33.0", ReleaseChanges())
    assert not without["default changed: --gpu-memory-utilization 0.9 -> 0.92"]


def test_new_options_need_no_answer() -> None:
    found = lines("vllm-0.32.0", "vllm-0.33.0", ReleaseChanges())
    assert found["option new: --watchdog-config"]


def test_used_names_options_of_profiles_and_models() -> None:
    options, variables = used()
    assert {"max-model-len", "reasoning-parser"} <= options
    assert "HF_HUB_OFFLINE" in variables
