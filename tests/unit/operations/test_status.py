"""The facts of `status`."""

import os
from pathlib import Path

import pytest

from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.status import changed_weights, condition, exit_code, read_status
from deckard_deploy.operations.weights import ensure_weights
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.running.layout import StateDir
from tests.support.fake_deployment import FakeDeployment
from tests.support.hub_server import Hub
from tests.support.model_hub import BIG
from tests.support.sample_choices import choice


def test_status_of_running_release_is_ready(fake: FakeDeployment) -> None:
    release = fake.proven(fake.plan())
    facts = read_status(Selection(fake.state.root), SILENT)
    assert (facts["deployment"], facts["state"], facts["answers"]) == ("box", "running", "ready")
    assert (facts["plan"], facts["gateway"]) == (release.plan_hash, "none")
    assert facts["base_url"] == f"http://127.0.0.1:{fake.port}/v1"
    assert facts["since"] == release.recorded_launch().started_at
    assert facts["last_failure"] is None
    assert "watch" not in facts


def test_status_of_stopped_release_has_no_url(fake: FakeDeployment) -> None:
    fake.proven(fake.plan())
    fake.runtime().stop()
    facts = read_status(Selection(fake.state.root), SILENT)
    assert (facts["state"], facts["answers"], facts["base_url"], facts["since"]) == (
        "missing",
        None,
        None,
        None,
    )


def test_status_names_last_failure(fake: FakeDeployment) -> None:
    release, launch = fake.stored(fake.plan())
    release.record(launch.model_copy(update={"state": "failed", "reason": "no kernel"}))
    fake.releases.switch(release)
    assert read_status(Selection(fake.state.root), SILENT)["last_failure"] == "no kernel"


def test_status_names_failure_of_a_release_that_another_replaced(fake: FakeDeployment) -> None:
    failed, launch = fake.stored(fake.plan(grace=6))
    failed.record(launch.model_copy(update={"state": "failed", "reason": "no kernel"}))
    (failed.folder / "failure.log").write_text("no kernel\n")
    fake.proven(fake.plan())
    facts = read_status(Selection(fake.state.root), SILENT)
    assert (facts["state"], facts["last_failure"]) == ("running", "no kernel")
    assert facts["failed_log"] == f"{failed.folder}/failure.log"


def test_status_without_current_release_is_state_alone(fake: FakeDeployment) -> None:
    fake.stored(fake.plan())
    assert read_status(Selection(fake.state.root), SILENT) == {
        "deployment": "box",
        "condition": "stopped",
        "state": "missing",
    }


@pytest.mark.parametrize(
    ("state", "answers", "launch", "expected", "code"),
    [
        ("running", "ready", "ready", "ready", 0),
        ("running", "loading", "starting", "loading", 7),
        ("running", "not answering", "ready", "not answering", 6),
        ("running", None, "ready", "not answering", 6),
        ("restarting", None, "ready", "failed", 6),
        ("exited", None, "ready", "failed", 6),
        ("exited", None, "stopped", "stopped", 3),
        ("missing", None, "failed", "failed", 6),
        ("missing", None, "stopped", "stopped", 3),
        ("missing", None, None, "stopped", 3),
    ],
)
def test_condition_has_an_exit_code(
    state: str, answers: str | None, launch: str | None, expected: str, code: int
) -> None:
    found = condition({"state": state, "answers": answers}, launch)
    assert (found, exit_code([{"condition": found}])) == (expected, code)


def test_worst_condition_decides() -> None:
    facts = [{"condition": each} for each in ("ready", "loading", "stopped", "not answering")]
    assert [exit_code(facts[:count]) for count in (1, 2, 3, 4)] == [0, 7, 3, 6]


def test_changed_weights_names_changed_file(hub: Hub, tmp_path: Path) -> None:
    directory = StateDir(tmp_path / "state")
    resolved = choice("spark")
    ensure_weights(resolved, directory, SILENT)
    plan = build_plan(resolved)
    assert changed_weights(plan, directory) is None
    path = directory.models / "deckard-31b" / BIG
    times = path.stat()
    path.write_bytes(hub.files[BIG][:-1] + b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rot on the disk leaves them
    assert changed_weights(plan, directory) == [f"deckard-31b/{BIG}"]
