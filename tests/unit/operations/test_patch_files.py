"""The plugin and the patches of a plan on this host."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.patch_files import attest, attest_plugin, build_patches
from deckard_deploy.operations.patches import with_needed_patches
from deckard_deploy.patching import request_filter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import DEFAULT_PATHS, build_plan, with_request_filter
from deckard_deploy.running.runtime import Runtime
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.sample_choices import choice


def plan_with_plugin(sha256: str | None = None, **changes: object) -> LaunchPlan:
    resolved = choice("spark", "engine=vllm-0.32.0")
    plan = with_needed_patches(build_plan(resolved), resolved, DEFAULT_PATHS.patches)
    assert plan.plugin
    if sha256:
        changes["sha256"] = sha256
    return plan.model_copy(update={"plugin": plan.plugin.model_copy(update=changes), "request_filter": None})


class EnginePython:
    """The part of a runtime that attests: this Python, with a plan's PYTHONPATH."""

    def run_python(self, plan: LaunchPlan, argv: tuple[str, ...]) -> str:
        environment = {**os.environ, "PYTHONPATH": plan.environment["PYTHONPATH"]}
        command = [sys.executable, *argv]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def plan_with_filter(fake: FakeDeployment) -> LaunchPlan:
    root = PurePosixPath(fake.state.root) / "patches"
    return with_request_filter(fake.plan(), request_filter.FILE, sha256=request_filter.sha256(), root=root)


def test_plan_without_patches_needs_none(fake: FakeDeployment, report: RecordingReporter) -> None:
    build_patches(fake.plan(), fake.runtime(), report)
    assert report.lines == []
    assert attest(fake.plan(), fake.runtime()) == "none needed"
    assert attest_plugin(fake.plan(), fake.runtime()) == "none needed"


def test_plugin_of_other_version_is_refused(fake: FakeDeployment, report: RecordingReporter) -> None:
    with pytest.raises(IntegrityError, match="plugin nvfp4-awq is not the one that was planned"):
        build_patches(plan_with_plugin("0" * 64), fake.runtime(), report)


def test_plugin_is_built_at_its_place(fake: FakeDeployment, report: RecordingReporter) -> None:
    source = fake.state.root / "plugins" / "plugin.whl"
    plan = plan_with_plugin(source=str(source))
    build_patches(plan, fake.runtime(), report)
    assert source.is_file()
    assert report.lines[0].startswith("plugin   nvfp4-awq ")


def test_log_without_start_attests_no_plugin(fake: FakeDeployment) -> None:
    fake.proven(fake.plan())
    line = attest_plugin(plan_with_plugin(), fake.runtime())
    assert line == "not asked: the log does not reach back to the start"


def test_filter_of_requests_is_built_and_attested(fake: FakeDeployment, report: RecordingReporter) -> None:
    plan = plan_with_filter(fake)
    assert plan.request_filter
    python = cast("Runtime", EnginePython())
    with pytest.raises(IntegrityError, match="cannot be imported"):
        attest(plan, python)
    build_patches(plan, fake.runtime(), report)
    assert attest(plan, python) == "request-filter in use, hashes right"
    file = Path(plan.request_filter.source)
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(IntegrityError, match="not patch request-filter"):
        attest(plan, python)


def test_filter_of_other_version_is_refused(fake: FakeDeployment, report: RecordingReporter) -> None:
    plan = plan_with_filter(fake)
    assert plan.request_filter
    other = plan.request_filter.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(IntegrityError, match="the filter of requests is not the one that was planned"):
        build_patches(plan.model_copy(update={"request_filter": other}), fake.runtime(), report)


def test_files_of_an_earlier_version_are_used_where_they_are(
    fake: FakeDeployment, report: RecordingReporter
) -> None:
    """`start` and `rollback` of a release that an earlier version of this tool wrote: its files are other ones."""
    earlier = b"# of an earlier version\n"
    changes = {"sha256": hashlib.sha256(earlier).hexdigest()}
    plan = plan_with_filter(fake)
    assert plan.request_filter
    file, wheel = Path(plan.request_filter.source), fake.state.root / "plugins" / "plugin.whl"
    plugin = plan_with_plugin(source=str(wheel), **changes).plugin
    mount = plan.request_filter.model_copy(update=changes)
    for path in (file, wheel):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(earlier)
    build_patches(plan.model_copy(update={"request_filter": mount, "plugin": plugin}), fake.runtime(), report)
    assert (file.read_bytes(), wheel.read_bytes()) == (earlier, earlier)
