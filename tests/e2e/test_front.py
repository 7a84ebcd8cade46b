"""The front of replicas: the real nginx with its rendered configuration, before stubs that count what they hear."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.planning.replicas import as_front
from deckard_deploy.rendering.gateway import REPLICAS, Member, render_gateway, render_replicas
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys, KeyTerms
from tests.support.fake_deployment import FakeDeployment
from tests.support.ports import free_port
from tests.support.waiting import eventually

BODY = b'{"choices": [{"message": {"content": "ready"}}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class Stub:
    """A replica on a socket. mode: answer, break (close without an answer), hold (until `release`)."""

    def __init__(self, path: Path, mode: str = "answer") -> None:
        self.path, self.mode = path, mode
        self.heard: list[bytes] = []
        self.release = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\r\n\r\n" not in request or not request.endswith(b"}"):
                piece = connection.recv(1 << 16)
                if not piece:
                    return
                request += piece
            self.heard.append(request.rpartition(b"\r\n\r\n")[2])
            if self.mode == "hold":
                self.release.wait(60)
            if self.mode != "break":
                connection.sendall(ANSWER)

    def close(self) -> None:
        self._listener.close()
        self.path.unlink()


class Front:
    """nginx before stubs, in a folder of its own."""

    def __init__(self, folder: Path, engine: LaunchPlan, change: Callable[[str], str] = str) -> None:
        release = folder / "releases" / "abc"
        release.mkdir(parents=True)
        (folder / "replicas").mkdir()
        gateway = Gateway(
            image=None, program="/usr/sbin/nginx", user=None, folder=str(folder / "gateway"), exposed=False,
            tls=False, certificate=None, certificate_key=None,
        )  # fmt: skip
        plan = as_front(engine.model_copy(update={"gateway": gateway, "port": free_port()}))
        self.keys = Keys(folder / "state")
        self.folder = folder
        self.plan = plan
        members = [Member(f"unix:replicas/{number}.sock") for number in (1, 2)]
        files.write_gateway_files(plan, self.keys, environment=dict(os.environ), say=print)
        (folder / "gateway" / REPLICAS).write_text(render_replicas(members, engine))
        (release / "nginx.conf").write_text(change(render_gateway(plan)))
        options = ("-g", "user root;") if os.geteuid() == 0 else ()
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            ["/usr/sbin/nginx", "-p", str(folder), "-e", "stderr", "-c", str(release / "nginx.conf"), *options],
            cwd=folder, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        assert eventually(self.lives), (folder / "log").read_text()

    def lives(self) -> bool:
        try:
            return requests.get(f"{self.plan.base_url}/health/live", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def ask(self, text: str, key: str | None = None) -> int:
        return requests.post(
            f"{self.plan.base_url}/chat/completions",
            json={"messages": [{"role": "user", "content": text}]},
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=60,
        ).status_code

    def stub(self, number: int, mode: str = "answer") -> Stub:
        return Stub(self.folder / "replicas" / f"{number}.sock", mode)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture
def engine(tmp_path: Path) -> LaunchPlan:
    return FakeDeployment(tmp_path / "fake").plan()


@pytest.fixture
def front(tmp_path: Path, engine: LaunchPlan, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    made = _front(tmp_path, engine, monkeypatch)
    yield made
    made.close()


def _front(
    folder: Path, engine: LaunchPlan, monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str] = str
) -> Front:
    made = Front(folder / "front", engine, change)
    monkeypatch.chdir(folder / "front")  # the path of a socket has at most 107 bytes
    return made


def test_requests_are_spread_by_connections(front: Front) -> None:
    held, free = front.stub(1, "hold"), front.stub(2)
    with ThreadPoolExecutor() as pool:
        first = [pool.submit(front.ask, "a"), pool.submit(front.ask, "b")]
        assert eventually(lambda: held.heard)
        statuses = [front.ask(str(number)) for number in range(6)]
        held.release.set()
        assert [each.result() for each in first] == [200, 200]
    assert statuses == [200] * 6
    assert len(held.heard) <= 2
    assert len(free.heard) >= 6


def test_killed_replica_costs_no_request(front: Front) -> None:
    one, two = front.stub(1), front.stub(2)
    assert {front.ask(str(number)) for number in range(8)} == {200}
    assert one.heard
    one.close()
    assert {front.ask(f"after {number}") for number in range(8)} == {200}
    assert len(two.heard) >= 8


def test_replica_comes_back_by_its_link_alone(front: Front) -> None:
    front.stub(2)
    assert front.ask("one") == 200
    one = front.stub(1)
    assert eventually(lambda: front.ask("again") == 200 and bool(one.heard))


def test_request_that_was_sent_is_not_sent_twice(front: Front) -> None:
    stubs = [front.stub(1, "break"), front.stub(2, "break")]
    assert front.ask("once") == 502
    assert sum(len(each.heard) for each in stubs) == 1


def test_control_non_idempotent_sends_it_twice(
    tmp_path: Path, engine: LaunchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retrying(text: str) -> str:
        changed = text.replace(
            "proxy_next_upstream error timeout;", "proxy_next_upstream error timeout non_idempotent;"
        )
        assert changed != text
        return changed

    front = _front(tmp_path, engine, monkeypatch, retrying)
    stubs = [front.stub(1, "break"), front.stub(2, "break")]
    try:
        front.ask("twice")
        assert [len(each.heard) for each in stubs] == [1, 1]
    finally:
        front.close()


def test_frozen_replica_holds_its_own_requests_alone(front: Front) -> None:
    """It has as many connections as the other when it freezes, and gets no new one while it has more."""
    frozen, other = front.stub(1, "hold"), front.stub(2)
    with ThreadPoolExecutor() as pool:
        stuck = [pool.submit(front.ask, f"stuck {number}") for number in range(2)]
        assert eventually(lambda: frozen.heard)
        assert {front.ask(f"free {number}") for number in range(10)} == {200}
        assert len(frozen.heard) <= 2
        frozen.release.set()
        assert {each.result() for each in stuck} == {200}
    heard = frozen.heard + other.heard
    assert len(heard) == len(set(heard)) == 12


def test_without_replicas_front_says_that_it_loads(front: Front) -> None:
    assert front.ask("nobody") == 503


def test_key_with_limits_keeps_to_one_replica(front: Front) -> None:
    with front.keys.lock():
        key = front.keys.add("limited", KeyTerms(requests=100))
    files.write_gateway_files(front.plan, front.keys, environment=dict(os.environ), say=print)
    front.process.send_signal(1)  # SIGHUP
    stubs = [front.stub(1), front.stub(2)]
    # Without a key it refuses, as often as there are old workers that might still answer.
    assert eventually(lambda: {front.ask("known?") for _ in range(20)} == {401})
    for stub in stubs:
        stub.heard.clear()
    assert {front.ask(str(number), key) for number in range(8)} == {200}
    assert sorted(len(each.heard) for each in stubs) == [0, 8]


def test_figures_of_one_replica_are_no_route(front: Front) -> None:
    front.stub(1)
    assert requests.get(f"{front.plan.base_url.removesuffix('/v1')}/metrics", timeout=30).status_code == 404
