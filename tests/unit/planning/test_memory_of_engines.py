"""The KV cache that is planned is the one that each release's own log names."""

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.memory import memory_of


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
