"""Changes of keys, and the gateways that they reach."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations.keys import (
    access_file,
    add_key,
    explain_revocation,
    limit_key,
    list_keys,
    open_host,
    revoke_key,
    rotate_key,
    tell_gateways,
    usage,
)
from deckard_deploy.running.gateway.keys import Keys, KeyTerms
from tests.support.docker_deployment import DockerDeployment
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter


def test_keys_are_added_listed_and_revoked(tmp_path: Path, report: RecordingReporter) -> None:
    key, first = add_key(tmp_path, "bob", report)
    assert first
    assert key.startswith("dk-bob-")
    _, first = add_key(tmp_path, "alice", report)
    assert not first
    assert list(list_keys(tmp_path)) == ["alice", "bob"]
    assert key not in access_file(tmp_path)
    assert '"dk-bob"' in access_file(tmp_path)
    assert revoke_key(tmp_path, "bob", report) is True
    assert '"dk-bob"' not in access_file(tmp_path)
    assert revoke_key(tmp_path, "alice", report) is False
    assert report.lines == []


def test_revocation_is_explained_and_not_done(tmp_path: Path, report: RecordingReporter) -> None:
    add_key(tmp_path, "alice", report)
    explain_revocation(tmp_path, "alice", report)
    assert report.lines == ["dry run: would revoke alice; keys that are left: 0"]
    assert list(list_keys(tmp_path)) == ["alice"]
    with pytest.raises(BadInputError, match="no key named 'bob'"):
        explain_revocation(tmp_path, "bob", report)


def test_used_and_unknown_names_are_refused(tmp_path: Path, report: RecordingReporter) -> None:
    add_key(tmp_path, "alice", report)
    with pytest.raises(BadInputError, match="alice"):
        add_key(tmp_path, "alice", report)
    with pytest.raises(BadInputError, match="bob"):
        revoke_key(tmp_path, "bob", report)


def test_key_is_refused_where_it_protects_nothing(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    with pytest.raises(EnvironmentUnfitError, match="box runs without a gateway"):
        add_key(fake.state.root, "alice", report)
    assert list_keys(fake.state.root) == {}
    fake.runtime().stop()
    assert add_key(fake.state.root, "alice", report)[1]


def test_forced_key_names_open_deployments(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    add_key(fake.state.root, "alice", report, force=True)
    tell_gateways(fake.state.root, report)
    assert report.lines == [
        "box has no gateway: it still serves every program of this machine, without a key"
    ]


def test_unreachable_gateway_does_not_stop_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    for name in ("a", "b"):
        fake = DockerDeployment(tmp_path, name)
        fake.stored(fake.plan(port=1))
        fake.deployment.gateway.mkdir()
        (fake.deployment.gateway / "access.conf").write_text("of before")
    state = ("--state-dir", str(tmp_path / "state"))
    for verb, known in (("add", True), ("revoke", False)):
        assert run(["keys", verb, "alice", *state]) == 3
        for name in ("a", "b"):  # what their nginx will read when it starts
            text = (tmp_path / f"state/deployments/{name}/gateway/access.conf").read_text()
            assert text == Keys(tmp_path / "state").access()
            assert ('"dk-alice"' in text) is known
    said = capsys.readouterr()
    assert said.out.startswith("dk-alice-")
    assert [said.err.count(f"gateway  of {name} may still use the old keys") for name in ("a", "b")] == [
        2,
        2,
    ]
    assert run(["keys", "list", *state]) == 0
    assert capsys.readouterr().out == ""  # it is revoked all the same, for every gateway that starts


def test_interrupted_revocation_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    fake, keys = DockerDeployment(tmp_path, "a"), Keys(tmp_path / "state")
    fake.stored(fake.plan(port=1))
    fake.deployment.gateway.mkdir()
    with keys.lock():
        keys.add("alice")
        (fake.deployment.gateway / "access.conf").write_text(keys.access())
        keys.revoke("alice")  # and here it was killed
    assert run(["keys", "revoke", "alice", "--state-dir", str(tmp_path / "state")]) == 3
    assert (fake.deployment.gateway / "access.conf").read_text() == keys.access()
    said = capsys.readouterr().err
    assert "no key is named 'alice'" in said
    assert "gateway  of a may still use the old keys" in said


def test_limits_rotation_and_opening(tmp_path: Path, report: RecordingReporter) -> None:
    key, _ = add_key(tmp_path, "alice", report, terms=KeyTerms(requests=60))
    limit_key(tmp_path, "alice", KeyTerms(tokens=1000), report)
    assert list_keys(tmp_path)["alice"].terms == KeyTerms(tokens=1000)
    assert rotate_key(tmp_path, "alice") != key
    with pytest.raises(BadInputError, match="alice"):
        open_host(tmp_path, report)
    revoke_key(tmp_path, "alice", report)
    open_host(tmp_path, report)
    assert "geo $open { default 1; }" in access_file(tmp_path)


def test_usage_without_gateway_says_so(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    assert list(usage(fake.state.root, report)) == []
    assert report.lines == ["box has no gateway, so it knows no keys"]
