"""A change of keys reaches every gateway of the host that it can reach, and says which it could not."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.running.gateway.keys import Keys
from tests.support.docker_deployment import DockerDeployment


def test_unreachable_gateway_does_not_stop_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    for name in ("a", "b"):
        world = DockerDeployment(tmp_path, name)
        world.stored(world.plan(port=1))
        world.deployment.gateway.mkdir()
        (world.deployment.gateway / "access.conf").write_text("of before")
    state = ("--state-dir", str(tmp_path / "state"))
    for verb, known in (("add", True), ("revoke", False)):
        assert run(["keys", verb, "alice", *state]) == 3
        for name in ("a", "b"):  # what their nginx will read when it starts
            text = (tmp_path / f"state/deployments/{name}/gateway/access.conf").read_text()
            assert text == Keys(tmp_path / "state").access()
            assert ('"dk-alice"' in text) is known
    said = capsys.readouterr()
    assert said.out.startswith("dk-alice-")
    assert [said.err.count(f"gateway  of {name} may still go by the old keys") for name in ("a", "b")] == [
        2,
        2,
    ]
    assert run(["keys", "list", *state]) == 0
    assert capsys.readouterr().out == ""  # it is revoked all the same, for every gateway that starts


def test_interrupted_revocation_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    world, keys = DockerDeployment(tmp_path, "a"), Keys(tmp_path / "state")
    world.stored(world.plan(port=1))
    world.deployment.gateway.mkdir()
    with keys.lock():
        keys.add("alice")
        (world.deployment.gateway / "access.conf").write_text(keys.access())
        keys.revoke("alice")  # and here it was killed
    assert run(["keys", "revoke", "alice", "--state-dir", str(tmp_path / "state")]) == 3
    assert (world.deployment.gateway / "access.conf").read_text() == keys.access()
    said = capsys.readouterr().err
    assert "no key is named 'alice'" in said
    assert "gateway  of a may still go by the old keys" in said
