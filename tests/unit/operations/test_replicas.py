"""Changes of a group without its front: the records and links of its folders."""

from pathlib import Path

import pytest

from deckard_deploy.operations import replicas
from deckard_deploy.operations.reporting import SilentReporter
from deckard_deploy.running import group as membership
from deckard_deploy.running.layout import StateDir


class Interrupting(SilentReporter):
    """The user interrupts at the first line."""

    def say(self, line: str) -> None:
        raise KeyboardInterrupt(line)


def test_interrupted_drain_gives_the_replica_requests_again(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "s")
    for name in ("box", "box-1"):
        state.create(name)
    group = replicas.Group(state, "box", 1)
    replicas.put_in(group, 1)
    with pytest.raises(KeyboardInterrupt):
        replicas.drain(group, 1, Interrupting())
    assert membership.members(group.front) == {1}
    # The control: a drain that ends leaves it out.
    replicas.drain(group, 1, SilentReporter())
    assert membership.members(group.front) == set()
