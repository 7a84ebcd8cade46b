"""`bench startup`: the caches that it sets aside, and what runs when a start fails."""

import shutil
from pathlib import Path

import pytest

from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import EnvironmentUnfitError, StartFailedError
from deckard_deploy.operations.bench_startup import _starts, emptied
from deckard_deploy.operations.deployments import DeploymentRef
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.running.deploy import DeploymentContext
from deckard_deploy.running.releases import Release
from deckard_deploy.running.runtime import Runtime
from tests.support.fake_deployment import FakeDeployment
from tests.support.waiting import eventually


def cache(folder: Path, mode: int = 0o755) -> Path:
    folder.mkdir()
    folder.chmod(mode)
    (folder / "kernel").write_text("old")
    return folder


def test_emptied_restores_caches(tmp_path: Path) -> None:
    vllm, fresh = cache(tmp_path / "vllm"), tmp_path / "triton"
    for _ in range(2):
        with emptied([vllm, fresh], SILENT):
            assert list(vllm.iterdir()) == []
            (vllm / "kernel").write_text("new")
        assert (vllm / "kernel").read_text() == "old"
    vllm.rename(tmp_path / "vllm.kept")  # as a kill leaves it, with a new cache begun
    vllm.mkdir()
    (vllm / "kernel").write_text("new")
    with emptied([vllm], SILENT):
        assert list(vllm.iterdir()) == []
    assert [(path.name, (path / "kernel").read_text()) for path in tmp_path.iterdir()] == [("vllm", "old")]


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_emptied_keeps_mode_of_folder(tmp_path: Path, mode: int) -> None:
    folder = cache(tmp_path / "vllm", mode)
    with emptied([folder], SILENT):
        assert folder.stat().st_mode & 0o7777 == mode
    assert folder.stat().st_mode & 0o7777 == mode


def test_emptied_reports_unremovable_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [cache(tmp_path / name) for name in ("vllm", "triton")]

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refused)  # as for files of the container's root
    with emptied(folders, TERMINAL):
        for folder in folders:
            (folder / "kernel").write_text("new")
    assert [(folder / "kernel").read_text() for folder in folders] == ["old", "old"]
    left = [path for path in tmp_path.iterdir() if path not in folders]
    assert [(path / "kernel").read_text() for path in left] == ["new", "new"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(any(line.endswith(f"sudo rm -r {path}") for line in said) for path in left)


def test_emptied_restores_others_after_error(tmp_path: Path) -> None:
    vllm, triton = (cache(tmp_path / name) for name in ("vllm", "triton"))

    def in_its_way() -> None:
        with emptied([vllm, triton], SILENT):
            triton.rmdir()
            triton.write_text("in the way")

    with pytest.raises(EnvironmentUnfitError, match=str(triton)):
        in_its_way()
    assert (vllm / "kernel").read_text() == "old"


@pytest.mark.parametrize("reason", [StartFailedError("no kernel", hint="look"), KeyboardInterrupt()])
def test_failed_start_restores_release(fake: FakeDeployment, tmp_path: Path, reason: BaseException) -> None:
    old = cache(tmp_path / "cache")
    plan = fake.plan(VLLM_CACHE_ROOT=str(old))
    seen: list[bool] = []

    def follow(release: Release, _: Runtime) -> None:
        seen.append((old / "kernel").is_file())
        if len(seen) == 1:
            raise reason
        eventually(lambda: release.recorded_launch().launch_id in (fake.names() or []))

    fake.releases.switch(fake.started(plan))
    site = DeploymentContext(
        releases=fake.releases, runtimes={"process": fake.runtime()}, follow=follow, say=lambda _: None
    )
    with pytest.raises(type(reason)):
        tuple(_starts(DeploymentRef(fake.state, "box"), site, plan, 1, SILENT))
    assert seen == [False, True]
    current = fake.releases.current()
    assert current
    assert current.recorded_launch().state == "ready"
    assert current.recorded_launch().launch_id in (fake.names() or [])
