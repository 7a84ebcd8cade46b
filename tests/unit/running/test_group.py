"""The record of a group, and the links by which a replica gets requests."""

import socket
from pathlib import Path

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.running import group
from deckard_deploy.running.layout import StateDir


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path / "s")
    for name in ("box", "box-1", "box-2", "box-x", "other-1"):
        (made.create(name).releases / "0123456789ab").mkdir()
    return made


def test_record_makes_a_front_and_hides_its_replicas(state: StateDir) -> None:
    assert group.read(state.deployment("box")) is None
    assert state.deployments() == ["box", "box-1", "box-2", "box-x", "other-1"]
    group.record(state.deployment("box"), 2)
    assert group.read(state.deployment("box")) == group.GroupRecord(count=2)
    assert state.deployments() == ["box", "box-x", "other-1"]
    assert state.with_replicas() == ["box", "box-1", "box-2", "box-x", "other-1"]
    assert [state.front_of(name) for name in ("box-1", "box-x", "other-1", "box")] == [
        "box",
        None,
        None,
        None,
    ]


def test_damaged_record_is_named(state: StateDir) -> None:
    state.deployment("box").group.write_text("{")
    with pytest.raises(IntegrityError, match="is damaged"):
        group.read(state.deployment("box"))


def test_link_leads_to_socket_of_replica(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    front = state.deployment("box")
    monkeypatch.chdir(state.deployment("box-2").folder)  # the path of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("vllm.sock")
        listener.listen()
        group.put_in(front, 2, in_container=False)
        assert group.members(front) == {2}
        monkeypatch.chdir(front.folder)
        client.connect(group.server(2, in_container=False).removeprefix("unix:"))
        group.take_out(front, 2)
        assert group.members(front) == set()
        with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as late:
            late.connect(group.server(2, in_container=False).removeprefix("unix:"))
    group.take_out(front, 2)


def test_replica_decides_where_its_socket_is(state: StateDir) -> None:
    """A name that had replicas in containers has their folders still."""
    front = state.deployment("box")
    group.share_sockets(front, 2)
    group.put_in(front, 1, in_container=True)
    group.put_in(front, 2, in_container=False)
    assert [str((front.members / f"{number}.sock").readlink()) for number in (1, 2)] == [
        "1/vllm.sock",
        "../../box-2/vllm.sock",
    ]
