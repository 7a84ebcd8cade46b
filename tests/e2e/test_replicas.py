"""Replicas under load: the real nginx and supervisors, small servers as engines. A campaign has the real engine."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from deckard_deploy.errors import BadInputError, DeployError, StartFailedError
from deckard_deploy.operations import (
    bench,
    bench_spec,
    bench_startup,
    connect,
    down,
    group_watch,
    logs,
    monitoring,
    replicas,
    service,
    status,
    support,
    switch,
    top,
    up,
)
from deckard_deploy.operations.options import Choice, Selection
from deckard_deploy.running import watch as watch_record
from deckard_deploy.running.process.supervision import kill_tagged, server_tag, supervisor_tag
from deckard_deploy.startup.readiness import Outcome
from tests.support.fake_group import NAME, Clients, FakeGroup
from tests.support.ports import free_port
from tests.support.waiting import eventually

CLIENTS = 8
OTHER = ("engine=vllm-0.19.1-host", "drafter=none")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGroup]:
    made = FakeGroup(tmp_path_factory.mktemp("group"), 3)
    yield made
    made.end()


@pytest.fixture
def running(group: FakeGroup) -> FakeGroup:
    """The group, with all replicas on the same plan; what an earlier test has left of it is mended."""
    group.run(group.planned())
    return group


def asked(clients: Clients, more: int) -> None:
    """Wait until so many more answers have come."""
    before = len(clients.answers)
    assert eventually(lambda: len(clients.answers) >= before + more)


def test_up_proves_each_replica_and_the_front(running: FakeGroup) -> None:
    assert running.members() == {1, 2, 3}
    assert [running.state.deployments(), running.state.with_replicas()] == [
        [NAME],
        [NAME, f"{NAME}-1", f"{NAME}-2", f"{NAME}-3"],
    ]
    with Clients(running, 2) as clients:
        asked(clients, 20)
    assert clients.failed() == {}
    alone = requests.post(f"http://127.0.0.1:{running.ports[0]}/v1/chat/completions", json={}, timeout=30)
    assert alone.status_code == 401


def test_verbs_of_a_group(running: FakeGroup) -> None:
    selection = Selection(running.state.root)
    facts = replicas.read_status(selection, running.report)
    assert facts
    assert [each["deployment"] for each in facts] == [NAME, "box-1", "box-2", "box-3"]
    assert {each["condition"] for each in facts} == {"ready"}
    assert [each.get("gets_requests") for each in facts] == [None, True, True, True]
    assert status.exit_code(facts) == 0
    with pytest.raises(BadInputError, match="is about one engine"):
        next(logs.lines(selection, running.report, follow=False, tail=5))
    one = replicas.member(selection, 2)
    assert any("fake server" in line for line in logs.lines(one, running.report, follow=False, tail=500))
    with pytest.raises(BadInputError, match="box has 3 replicas"):
        replicas.member(selection, 4)


def test_verbs_that_ask_all_replicas(running: FakeGroup) -> None:
    selection = Selection(running.state.root)
    front = running.planned().front
    assert replicas.wait(selection, running.report) == front.base_url
    assert connect.endpoint_of(selection, running.report)[0].base_url == front.base_url
    sample = top.one_sample(top.metrics_source(selection, running.report), 0.1)
    assert sample.figures
    assert (sample.figures.running, sample.figures.kv_use) == (6, 0.5)
    assert [name for name, _ in sample.of] == ["box-1", "box-2", "box-3"]
    assert {part.figures.running for _, part in sample.of if part.figures} == {2}
    archive = support.collect(selection, running.report, redact=str, environment={})
    assert {f"box-{number}" for number in (1, 2, 3)} <= {Path(file.name).parts[0] for file in archive}


def test_verbs_of_the_whole_group_write_one_thing(running: FakeGroup) -> None:
    selection = Selection(running.state.root)
    unit = service.install(selection, running.report, program=("/bin/true",), dry_run=True)
    assert (unit.name, unit.file.name) == (NAME, f"deckard-{NAME}.service")
    monitoring.start(selection, running.report, prometheus_port=1, grafana_port=2, dry_run=True)
    assert f"deployments/{NAME}/monitoring" in running.report.lines[-1]


@pytest.mark.parametrize(
    "verb",
    [
        lambda selection: bench.select(selection, None),
        lambda selection: bench_startup.explain(selection, 1),
        lambda selection: bench_spec.explain(selection, (1,)),
    ],
)
def test_benchmarks_are_about_one_engine(running: FakeGroup, verb: Callable[[Selection], object]) -> None:
    with pytest.raises(BadInputError, match="box has replicas, and this is about one engine") as refused:
        verb(Selection(running.state.root))
    assert refused.value.hint == "--name box-1"


def test_switch_from_a_group_and_back(running: FakeGroup) -> None:
    desk = running._plan("desk", free_port(), {}).model_copy(update={"role": "engine"})
    planned = running.planned().replicas[0]._replace(plan=desk)
    up.converge(planned, running.state, running.report)
    switch.run(NAME, "desk", running.state.root, running.report)
    assert running.members() == set()
    back = switch.run("desk", NAME, running.state.root, running.report)
    assert back == running.planned().front.base_url
    down.run(Selection(running.state.root, "desk"), running.report, purge=True)
    assert running.members() == {1, 2, 3}


def test_second_up_changes_nothing(running: FakeGroup) -> None:
    before = [running.server(number) for number in (1, 2, 3)]
    running.run(running.planned())
    assert [running.server(number) for number in (1, 2, 3)] == before


def test_rolling_change_fails_no_request(running: FakeGroup) -> None:
    before = {running.server(number) for number in (1, 2, 3)}
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        running.run(running.planned(NUMBER="2"))
        asked(clients, CLIENTS)
    assert clients.failed() == {}
    assert {running.heard()[text] for text in clients.answers} == {1}
    assert clients.fewest == 2
    assert before.isdisjoint(running.server(number) for number in (1, 2, 3))


def test_control_without_draining_requests_fail(running: FakeGroup) -> None:
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        down.stop(running.group().replica(1), running.report, purge=False)
        asked(clients, CLIENTS)
    assert clients.failed()
    assert max(running.heard()[text] for text in clients.answers) == 1


def test_failing_change_stops_and_fails_no_request(running: FakeGroup) -> None:
    others = [running.server(number) for number in (2, 3)]
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        with pytest.raises(StartFailedError) as failed:
            running.run(running.planned(FAKE_MODE="crash"))
        asked(clients, CLIENTS)
    assert "replica box-1: " in failed.value.message
    assert "is running again; not touched: box-2, box-3" in failed.value.message
    assert clients.failed() == {}
    assert running.members() == {1, 2, 3}
    assert [running.server(number) for number in (2, 3)] == others


def test_rollback_is_rolled_too(running: FakeGroup) -> None:
    running.run(running.planned(NUMBER="2"))
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        replicas.rollback(Selection(running.state.root, NAME), running.report)
        asked(clients, CLIENTS)
    assert clients.failed() == {}
    assert clients.fewest == 2


def test_no_replica_is_taken_out_while_another_does_not_serve(running: FakeGroup) -> None:
    down.stop(running.group().replica(3), running.report, purge=False)
    before = [running.server(number) for number in (1, 2)]
    planned = running.planned(NUMBER="2")
    broken = planned.replicas[2].plan.model_copy(update={"environment": {"FAKE_MODE": "crash"}})
    members = (*planned.replicas[:2], planned.replicas[2]._replace(plan=broken))
    with pytest.raises(DeployError, match="replica box-3"):
        running.run(planned._replace(replicas=members))
    assert [running.server(number) for number in (1, 2)] == before


def test_killed_engine_costs_its_own_requests_alone(running: FakeGroup) -> None:
    with Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        os.kill(running.server(1).pid, signal.SIGKILL)
        asked(clients, 10 * CLIENTS)
    assert len(clients.failed()) <= CLIENTS
    assert max(running.heard()[text] for text in clients.answers) == 1
    assert eventually(lambda: replicas.answers(running.group(), 1).outcome is Outcome.READY)


@contextmanager
def watched(group: FakeGroup) -> Iterator[None]:
    """The watch over the group, which ends with the group."""
    watch = threading.Thread(
        target=group_watch.run,
        args=(Selection(group.state.root, NAME), group.report),
        kwargs={"interval_s": 0.5, "deadline_s": 5.0},
        daemon=True,
    )
    watch.start()
    try:
        yield
    finally:
        group.stop()
        watch.join()


def test_watch_takes_a_silent_replica_out_until_it_answers(running: FakeGroup) -> None:
    frozen = running.server(1)
    with watched(running), Clients(running, CLIENTS) as clients:
        asked(clients, CLIENTS)
        os.kill(frozen.pid, signal.SIGSTOP)
        assert eventually(lambda: 1 not in running.members())
        asked(clients, 4 * CLIENTS)
        os.kill(frozen.pid, signal.SIGCONT)
        assert eventually(lambda: running.members() == {1, 2, 3})
        asked(clients, CLIENTS)
    assert max(running.heard()[text] for text in clients.answers) == 1
    # It may have been restarted before it answered: that costs the requests that it had.
    assert len(clients.failed()) <= CLIENTS


def kill(folder: Path) -> None:
    """Kill all processes of a deployment."""
    kill_tagged(supervisor_tag(folder))
    kill_tagged(server_tag(folder))


def _kill_one(running: FakeGroup, clients: Clients) -> None:
    """Kill the second replica under load, and wait until it gets requests again."""
    asked(clients, CLIENTS)
    kill(running.state.deployment("box-2").folder)
    assert eventually(lambda: 2 not in running.members())
    assert eventually(lambda: running.members() == {1, 2, 3})
    asked(clients, CLIENTS)


def test_watch_starts_a_killed_front_and_a_killed_replica(running: FakeGroup) -> None:
    killed = running.server(2)
    with watched(running):
        kill(running.state.deployment(NAME).folder)
        with Clients(running, 1) as client:
            assert eventually(lambda: 200 in client.answers.values())
        with Clients(running, CLIENTS) as clients:
            _kill_one(running, clients)
            assert running.server(2) != killed
    assert len(clients.failed()) <= CLIENTS
    assert max(running.heard()[text] for text in clients.answers) == 1
    record = watch_record.read(running.state.deployment("box-2"))
    assert record
    assert [each.outcome for each in record.restarts] == ["ready"]


def test_watch_starts_the_front_after_the_first_replica(running: FakeGroup) -> None:
    for name in running.state.with_replicas():
        kill(running.state.deployment(name).folder)
    said = len(running.report.lines)
    with watched(running):
        assert eventually(
            lambda: any(line.startswith("box-3  healthy") for line in running.report.lines[said:])
        )
    lines = running.report.lines[said:]
    front, second = (
        next(at for at, line in enumerate(lines) if line.startswith(head))
        for head in ("front ", "box-2  start ")
    )
    assert front < second, lines


def test_fewer_and_more_replicas(running: FakeGroup) -> None:
    kept = [running.server(number) for number in (1, 2)]
    with Clients(running, CLIENTS, keep=False) as clients:
        asked(clients, CLIENTS)
        running.run(running.planned(size=2))
        assert running.state.with_replicas() == [NAME, "box-1", "box-2"]
        running.run(running.planned())
        asked(clients, CLIENTS)
    assert clients.failed() == {}
    assert [running.server(number) for number in (1, 2)] == kept


def test_down_stops_all_and_start_brings_all_back(running: FakeGroup) -> None:
    selection = Selection(running.state.root)
    replicas.down(selection, running.report)
    assert running.members() == set()
    assert replicas.start(selection, running.report) == running.planned().front.base_url
    assert running.members() == {1, 2, 3}


def test_one_engine_in_the_place_of_a_group_is_refused(running: FakeGroup) -> None:
    choice = Choice(profile="h200", settings=("name=box", *OTHER))
    with pytest.raises(BadInputError, match="box has replicas"):
        replicas.up(choice, running.state.root, running.report)
    choice = Choice(profile="h200", settings=("name=box-2", *OTHER))
    with pytest.raises(BadInputError, match="box-2 is a replica of box"):
        replicas.up(choice, running.state.root, running.report)


def test_purge_removes_all(running: FakeGroup) -> None:
    replicas.down(Selection(running.state.root), running.report, purge=True)
    assert running.state.with_replicas() == []
