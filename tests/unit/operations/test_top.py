"""Samples of a server, also one that is restarted."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deckard_deploy.errors import NetworkError
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.top import MetricsSource, metrics_source, one_sample, samples
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.system.http import ANONYMOUS
from tests.support.fake_deployment import FakeDeployment
from tests.support.sample_choices import choice
from tests.support.sample_figures import PAGE


class Served(BaseHTTPRequestHandler):
    """The real page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


def served(port: int) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), Served)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def stopped(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = served(0)
    yield made
    made.server_close()


def test_samples_survive_server_restart(server: ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    source = MetricsSource(build_plan(choice("cpu")), f"http://127.0.0.1:{port}/metrics", ANONYMOUS)
    looks = samples(source, 0)
    assert next(looks).figures is not None
    stopped(server)
    gone = next(looks)
    assert (gone.figures, f"http://127.0.0.1:{port}/metrics: ConnectionError") == (None, gone.problem)
    again = served(port)
    found = next(looks).figures
    stopped(again)
    assert found is not None
    assert found.restarts == 0  # the same page: the engine behind it did not restart


def test_one_sample_without_server_fails() -> None:
    source = MetricsSource(build_plan(choice("cpu")), "http://127.0.0.1:9/metrics", ANONYMOUS)
    with pytest.raises(NetworkError, match="/metrics: ConnectionError") as failed:
        one_sample(source, 0)
    assert failed.value.hint == "deckard-deploy status"


def test_metrics_source_is_the_running_plan(fake: FakeDeployment) -> None:
    plan = fake.proven(fake.plan()).plan
    source = metrics_source(Selection(fake.state.root), SILENT)
    assert source == MetricsSource(plan, f"http://127.0.0.1:{fake.port}/metrics", ANONYMOUS)
