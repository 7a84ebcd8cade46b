"""Replicas in docker under load: real compose, the real nginx, small servers in the engine's image."""

import os
import signal
from collections.abc import Iterator

import pytest
import requests

from deckard_deploy.operations import down, logs, replicas
from deckard_deploy.operations.options import Selection
from deckard_deploy.startup.readiness import Outcome
from tests.support.docker_group import NAME, DockerGroup, left, stub_image
from tests.support.fake_group import Clients
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker
CLIENTS = 6


@pytest.fixture(scope="module")
def group(image: str, gateway_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerGroup]:
    with stub_image(image, tmp_path_factory.mktemp("stub")) as stub:
        made = DockerGroup(tmp_path_factory.mktemp("group"), 2, image=stub, gateway_image=gateway_image)
        yield made
        made.end()
    assert left() == []


@pytest.fixture
def running(group: DockerGroup) -> DockerGroup:
    group.run(group.planned())
    return group


def asked(clients: Clients, more: int) -> None:
    before = len(clients.answers)
    assert eventually(lambda: len(clients.answers) >= before + more)


def test_up_proves_replicas_and_front_in_docker(running: DockerGroup) -> None:
    facts = replicas.read_status(Selection(running.state.root), running.report)
    assert facts
    assert {each["condition"] for each in facts} == {"ready"}
    assert [each.get("gets_requests") for each in facts] == [None, True, True]
    with Clients(running, 2) as clients:
        asked(clients, 20)
    assert clients.failed() == {}
    port = running.planned().replicas[0].plan.port
    alone = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={}, timeout=30)
    assert alone.status_code == 401
    one = replicas.member(Selection(running.state.root), 2)
    assert any("fake server" in line for line in logs.lines(one, running.report, follow=False, tail=500))


def test_rolling_change_and_rollback_in_docker_fail_no_request(running: DockerGroup) -> None:
    before = {running.container(number) for number in (1, 2)}
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        running.run(running.planned(NUMBER="2"))
        assert before.isdisjoint({running.container(number) for number in (1, 2)})
        replicas.rollback(Selection(running.state.root, NAME), running.report)
        asked(clients, CLIENTS)
    assert clients.failed() == {}
    assert {running.heard()[text] for text in clients.answers} == {1}
    assert clients.fewest == 1


def test_control_in_docker_without_draining_requests_fail(running: DockerGroup) -> None:
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        down.stop(running.group().replica(1), running.report, purge=False)
        asked(clients, CLIENTS)
    assert clients.failed()
    assert max(running.heard()[text] for text in clients.answers) == 1


def test_killed_engine_in_docker_costs_its_own_requests(running: DockerGroup) -> None:
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        os.kill(running.engine_pid(1), signal.SIGKILL)
        asked(clients, 10 * CLIENTS)
        assert eventually(lambda: replicas.answers(running.group(), 1).outcome is Outcome.READY)
    assert len(clients.failed()) <= CLIENTS
    assert max(running.heard()[text] for text in clients.answers) == 1


def test_down_in_docker_leaves_no_container(running: DockerGroup) -> None:
    replicas.down(Selection(running.state.root), running.report, purge=True)
    assert [left(), running.state.with_replicas()] == [[], []]
