"""Words that are near to a mistyped one."""

import pytest

from deckard_deploy.system.suggestion import closest

MODELS = ["deckard-31b", "deckard-31b-svdquant", "deckard-e4b", "tiny-gemma4"]
ENGINES = ["vllm-0.19.1", "vllm-0.32.0", "aeon-awq"]


@pytest.mark.parametrize(
    ("word", "known", "suggestion"),
    [
        ("sparc", ["spark", "b200"], "; did you mean 'spark'?"),
        ("Spark", ["spark", "b200"], "; did you mean 'spark'?"),
        ("zebra", ["spark", "b200"], ""),
        ("gpu", ["cpu", "b200"], ""),
        ("", ["cpu"], ""),
        ("deckard", MODELS, "; did you mean 'deckard-31b' or 'deckard-31b-svdquant' or 'deckard-e4b'?"),
        ("vllm-0.20", ENGINES, ""),
        ("vllm-0.32", ENGINES, "; did you mean 'vllm-0.32.0'?"),
        ("h20", ["h200", "h100"], "; did you mean 'h200'?"),
    ],
)
def test_closest_suggests_only_near_words(word: str, known: list[str], suggestion: str) -> None:
    assert closest(word, known) == suggestion
