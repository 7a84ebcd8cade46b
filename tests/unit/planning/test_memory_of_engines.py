"""The KV cache that is planned is the one that each release's own log names."""

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
def test_as_its_log_says(engine: str, drafter: str, tokens: int) -> None:
    memory = memory_of(resolve(Deployment(engine=engine, drafter=drafter), profile=library.profile("cpu")))
    assert (memory.tokens, round(memory.concurrency, 2)) == (tokens, 309.13)


@pytest.mark.parametrize(
    ("settings", "graphs"),
    [
        (("engine=vllm-0.19.1",), 0),
        (("engine=vllm-0.19.1", "environment.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1"), GIB),
        (("engine=vllm-0.32.0",), GIB),
        (("engine=vllm-0.32.0", "environment.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0"), 0),
    ],
)
def test_who_takes_the_graphs_off_the_kv_cache(settings: tuple[str, ...], graphs: int) -> None:
    """Off by default until 0.21.0, on since (the log line that 0.32.0 prints of it)."""
    eager, compiled = (memory_of(choice("b200", *settings, *more)) for more in (("enforce-eager=true",), ()))
    assert eager.kv_bytes() - compiled.kv_bytes() == graphs
