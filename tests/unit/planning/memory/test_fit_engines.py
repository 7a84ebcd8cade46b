"""The planned KV cache equals the figures in the logs of each release."""

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.memory.fit import memory_of
from deckard_deploy.planning.memory.settings import GIB
from tests.support.sample_choices import choice


@pytest.mark.parametrize(
    ("engine", "drafter", "tokens"),
    [
        ("vllm-0.19.1-cpu", "none", 349_440),  # tests/unit/startup/logs/ready.eager.log
        ("vllm-0.32.0-cpu", "mtp", 316_551),  # ready.mtp.log: the drafter reads the target's cache
    ],
)
def test_tokens_match_log_of_release(engine: str, drafter: str, tokens: int) -> None:
    memory = memory_of(resolve(Deployment(engine=engine, drafter=drafter), profile=library.profile("cpu")))
    assert (memory.tokens, round(memory.concurrency, 2)) == (tokens, 309.13)


@pytest.mark.parametrize(
    ("settings", "graphs"),
    [
        (("engine=vllm-0.19.1",), 0),
        (("engine=vllm-0.19.1", "environment.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1"), int(0.4 * GIB)),
        (("engine=vllm-0.32.0",), int(0.4 * GIB)),
        (("engine=vllm-0.32.0", "environment.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0"), 0),
    ],
)
def test_graphs_are_subtracted_by_release(settings: tuple[str, ...], graphs: int) -> None:
    """The default is off before 0.21.0 and on since (a log line of 0.32.0)."""
    eager, compiled = (memory_of(choice("b200", *settings, *more)) for more in (("enforce-eager=true",), ()))
    assert eager.kv_bytes() - compiled.kv_bytes() == graphs
