"""Prompts, and options of vllm bench."""

import pytest

from deckard_deploy.measuring.workload import Settings


def test_prompts_differ_from_their_first_word_on() -> None:
    settings = Settings()
    prompts = [*settings.prompts(300, seed=1), *settings.prompts(300, seed=2)]
    assert len({prompt[:24] for prompt in prompts}) == 600
    assert settings.prompts(3, seed=1) == prompts[:3]


@pytest.mark.parametrize("workload", ["text", "random"])
def test_arguments_are_options_of_vllm_bench(workload) -> None:
    words = Settings(workload=workload).arguments(4, 8, 1)
    assert all(name.startswith("--") for name in words[::2])
    assert "--num-warmups" not in words  # it would put the first measured prompt into the prefix cache
