"""A slice of the soak with a fixed seed: what must not touch a healthy engine, under load."""

from random import Random

import pytest

from tests.campaigns.soak import EVENTS, order, parse, run
from tests.e2e.downloads import GATEWAY_IMAGE

pytestmark = [pytest.mark.docker, pytest.mark.vllm, pytest.mark.slow]
HARMLESS = ("nginx crashed", "keys changed", "up again")


def options(*more: str, image: str = "IMAGE", gateway: str = GATEWAY_IMAGE) -> list[str]:
    return ["--shared-daemon", "--engine", "vllm-0.19.1-cpu-docker", image, "--gateway", gateway, *more]


def test_load_and_harmless_events_leave_the_engine_alone(image: str, gateway_image: str) -> None:
    more = ("--ranks", "1", "--events", "3", "--only", *HARMLESS)
    soak = run(parse(options(*more, image=image, gateway=gateway_image)))
    assert soak.problems == []
    assert sum(line.startswith("ok ") for line in soak.lines) == len(HARMLESS)
    assert sum(not each.failed for each in soak.answers) > 0


def test_seed_decides_the_order_and_every_event_comes() -> None:
    def names(seed: int, *more: str) -> list[str]:
        events = order(Random(seed), parse(options(*more)))
        return [next(events).name for _ in range(3 * len(EVENTS))]

    assert names(1) == names(1) != names(2)
    assert set(names(1)) == {event.name for event in EVENTS} - {"daemon restarted"}
    assert "one rank frozen" not in names(1, "--ranks", "1")
    assert names(1).index("setting changed") < names(1).index("rolled back")
