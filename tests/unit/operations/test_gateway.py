"""The gateway of a deployment: keys that it needs, and the report of an exposed endpoint."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.gateway import (
    credentials,
    ensure_gateway_files,
    has_stale_keys,
    refuse_unfit_gateway,
    refuse_useless_keys,
    report_exposure,
)
from deckard_deploy.operations.keys import add_key
from deckard_deploy.operations.plan import plan_for_host
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.http import ANONYMOUS
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.sample_choices import choice

EXPOSED = ("publish.expose=192.168.1.20", "publish.tls=false")


def planned(directory: StateDir, *settings: str) -> LaunchPlan:
    return plan_for_host(choice("spark", *settings), directory, None)


def test_plan_without_gateway_needs_no_key(fake: FakeDeployment, report: RecordingReporter) -> None:
    plan = fake.plan()
    assert credentials(plan, fake.state) == ANONYMOUS
    assert ensure_gateway_files(plan, fake.state, report) is False
    assert report.lines[0].startswith("gateway  none: ")
    assert has_stale_keys(plan, fake.state) is False
    report_exposure(plan, fake.state, report)
    assert len(report.lines) == 1


def test_keys_without_gateway_are_refused(tmp_path: Path) -> None:
    directory, resolved = StateDir(tmp_path), choice("cpu")
    without = plan_for_host(resolved, directory, None).model_copy(update={"gateway": None})
    refuse_useless_keys(resolved, without, directory)  # no key exists
    add_key(tmp_path, "alice", SILENT)
    with pytest.raises(BadInputError, match="the keys of this host would not protect it"):
        refuse_useless_keys(resolved, without, directory)
    refuse_useless_keys(choice("cpu", "gateway=off"), without, directory)
    refuse_useless_keys(choice("spark"), planned(directory), directory)


def test_exposed_endpoint_needs_a_key(tmp_path: Path) -> None:
    directory = StateDir(tmp_path)
    plan = planned(directory, *EXPOSED)
    with pytest.raises(BadInputError, match=r"--expose 192\.168\.1\.20 needs a key for clients"):
        refuse_unfit_gateway(plan, directory)
    add_key(tmp_path, "alice", SILENT)
    refuse_unfit_gateway(plan, directory)
    refuse_unfit_gateway(planned(directory), directory)


def test_exposure_names_keys_and_routes(tmp_path: Path, report: RecordingReporter) -> None:
    directory = StateDir(tmp_path)
    add_key(tmp_path, "bob", SILENT)
    add_key(tmp_path, "alice", SILENT)
    report_exposure(planned(directory, *EXPOSED), directory, report)
    assert report.lines[0].endswith("to every machine that reaches 192.168.1.20; keys: alice, bob")
    assert "/metrics" not in "".join(report.lines)
    assert report.lines[-1] == "         without TLS: keys and prompts can be read"


def test_gateway_files_are_written_once(tmp_path: Path, report: RecordingReporter) -> None:
    directory = StateDir(tmp_path)
    directory.create("spark")
    plan = planned(directory)
    assert ensure_gateway_files(plan, directory, report) is True
    assert ensure_gateway_files(plan, directory, report) is False
    add_key(tmp_path, "alice", SILENT)
    assert ensure_gateway_files(plan, directory, report) is True
    assert credentials(plan, directory).key
