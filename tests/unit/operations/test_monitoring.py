"""The files of `monitor`: private, with a password that is created once."""

import functools
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePosixPath

import pytest

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.deployments import DeploymentRef
from deckard_deploy.operations.monitoring import (
    _write,
    explain_stop,
    gateway_credentials,
    monitoring_folder,
    purge,
    start,
    stop,
    write_files,
)
from deckard_deploy.operations.options import Selection
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan
from deckard_deploy.rendering.monitoring import KEY_FILE, PASSWORD_FILE, MonitoringSettings, render_monitoring
from deckard_deploy.running import group as membership
from deckard_deploy.running.gateway.keys import Keys
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.sample_choices import choice
from tests.support.waiting import eventually


def written(folder: Path) -> dict[str, str]:
    texts = render_monitoring(
        [build_plan(choice("spark"))], MonitoringSettings(folder=str(folder), user="0:0")
    )
    _write(folder, texts)
    return texts


def test_password_is_created_once_and_private(tmp_path: Path) -> None:
    texts = written(tmp_path / "monitoring")
    file = tmp_path / "monitoring" / PASSWORD_FILE
    password = file.read_text(encoding="utf-8")
    assert len(password) >= 32
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    written(tmp_path / "monitoring")
    assert file.read_text(encoding="utf-8") == password
    written(tmp_path / "other")
    assert (tmp_path / "other" / PASSWORD_FILE).read_text(encoding="utf-8") != password
    assert password not in "".join(texts.values())


def test_written_files_are_private(tmp_path: Path) -> None:
    os.umask(0o022)
    written(tmp_path / "monitoring")
    open_ones = [path for path in (tmp_path / "monitoring").rglob("*") if path.stat().st_mode & 0o077]
    assert open_ones == []


def test_dry_run_of_start_writes_nothing(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    selection = Selection(fake.state.root)
    address = start(selection, report, prometheus_port=9090, grafana_port=3000, dry_run=True)
    assert address == "http://127.0.0.1:3000"
    folder = monitoring_folder(DeploymentRef(fake.state, "box"))
    assert report.lines[0].startswith("would run ")
    assert report.lines[0].endswith(f" from {folder}")
    assert not folder.exists()


def test_group_whose_front_alone_runs_is_a_shared_stack(
    fake: FakeDeployment, report: RecordingReporter
) -> None:
    """A front has no engine, whose dashboard a stack of one deployment has."""
    front = fake.plan().model_copy(update={"role": "front", "engine": "nginx"})
    fake.started(front)
    eventually(lambda: fake.runtime().observe().state == "running")
    membership.record(fake.deployment, 2)
    with pytest.raises(BadInputError):
        render_monitoring([front], MonitoringSettings(folder="/m", user="0:0"))
    start(Selection(fake.state.root), report, prometheus_port=9090, grafana_port=3000, dry_run=True)


class Daemon(socketserver.ThreadingUnixStreamServer):
    """A docker daemon that says what it is."""

    info: dict[str, object]


class Answers(BaseHTTPRequestHandler):
    server: Daemon

    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.41", **self.server.info}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The selected docker daemon, next to a `docker` that only names it."""
    address = tmp_path / "d.sock"
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$DOCKER_HOST"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{address}")
    with Daemon(str(address), Answers) as found:
        threading.Thread(target=found.serve_forever).start()
        yield found
        found.shutdown()


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"SecurityOptions": ["name=rootless"]}, "a rootless docker has no access to this host's network"),
        ({"ServerVersion": "4.3.1", "ProductLicense": "Apache-2.0"}, "`docker` is podman 4.3.1"),
    ],
)
def test_docker_that_cannot_run_it_is_refused(
    fake: FakeDeployment, report: RecordingReporter, daemon: Daemon, info: dict[str, object], says: str
) -> None:
    fake.proven(fake.plan())
    daemon.info = info
    for every in (False, True):
        with pytest.raises(EnvironmentUnfitError, match=says):
            start(Selection(fake.state.root), report, prometheus_port=9090, grafana_port=3000, every=every)
    assert not monitoring_folder(DeploymentRef(fake.state, "box")).exists()


def test_ports_must_differ(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    with pytest.raises(BadInputError, match="need a port each"):
        start(Selection(fake.state.root), report, prometheus_port=fake.port, grafana_port=3000)


def test_stack_of_all_leaves_out_what_is_stopped(fake: FakeDeployment, report: RecordingReporter) -> None:
    selection = Selection(fake.state.root)
    start_all = functools.partial(start, prometheus_port=9090, grafana_port=3000, every=True, dry_run=True)
    fake.stored(fake.plan())
    with pytest.raises(BadInputError, match="no deployment runs"):
        start_all(selection, report)
    assert report.lines == ["left out  box does not run"]
    fake.proven(fake.plan())
    start_all(selection, report)
    assert report.lines[-1].endswith(f" from {fake.state.root / 'monitoring'}")
    with pytest.raises(BadInputError, match="no other is named with it"):
        start_all(Selection(fake.state.root, "box"), report)
    assert (stop(selection, report, every=True), purge(selection, every=True)) == (
        ("these deployments", False),
        None,
    )


def test_stop_of_unmonitored_deployment_is_false(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.stored(fake.plan())
    selection = Selection(fake.state.root)
    assert stop(selection, report) == ("box", False)
    assert purge(selection) is None
    folder = monitoring_folder(DeploymentRef(fake.state, "box"))
    explain_stop(selection, report, every=False, purge=True)
    folder.mkdir()
    explain_stop(selection, report, every=False, purge=True)
    assert report.lines == [
        "dry run: would do nothing: nothing monitors box",
        f"dry run: would stop the monitoring of box, and remove {folder} with its figures",
    ]
    assert purge(selection) == folder
    assert not folder.exists()


def test_files_for_another_host_have_no_password(tmp_path: Path) -> None:
    plan = build_plan(choice("spark"))
    password = write_files(plan, tmp_path / "out")
    assert not password.exists()
    assert (tmp_path / "out" / "prometheus" / "prometheus.yml").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="File exists"):
        write_files(plan, tmp_path / "file")


def test_prometheus_asks_a_gateway_with_credentials(fake: FakeDeployment) -> None:
    assert gateway_credentials(fake.plan(), fake.state) == {}
    docker = build_plan(choice("spark"))
    assert gateway_credentials(docker, fake.state) == {KEY_FILE: Keys(fake.state.root).own()}
    plan = build_plan(choice("cpu"), DEFAULT_PATHS._replace(nginx=PurePosixPath("/usr/sbin/nginx")))
    assert gateway_credentials(plan, fake.state) == {KEY_FILE: Keys(fake.state.root).own()}
