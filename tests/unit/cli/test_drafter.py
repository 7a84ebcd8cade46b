"""What a start says of its drafter where nothing can be measured; the verdicts are run on a real server."""

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.cli.drafter import prove_drafter
from deckard_deploy.connection import NO_ACCESS
from deckard_deploy.planning.planner import build_plan


def said(drafter: str) -> list[str]:
    """Port 9 is the discard service's: nothing answers there."""
    choice = Deployment(drafter=drafter, publish=Publish(port=9))
    lines: list[str] = []
    prove_drafter(build_plan(resolve(choice, profile=library.profile("spark"))), NO_ACCESS, lines.append)
    return lines


def test_without_a_drafter_nothing_is_asked() -> None:
    assert said("none") == []


def test_what_cannot_be_measured_is_said_and_stops_nothing() -> None:
    (line,) = said("mtp")
    assert line.startswith("drafter  not measured: http://127.0.0.1:9/metrics: ")
