"""The `pull` verb, and the weights that `up` needs."""

from pathlib import Path

from deckard_deploy.cli.main import run
from deckard_deploy.weights.folder import ModelFolder
from tests.support.model_hub import BIG, hub

__all__ = ["hub"]
SPARK = ["--profile", "spark"]


def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "models" / "deckard-31b"


def test_pull_prints_folder_on_stdout(hub, tmp_path, capsys):
    assert run(["pull", *SPARK]) == 0
    said = capsys.readouterr()
    assert said.out == f"{folder(tmp_path)}\n{folder(tmp_path).with_name('gemma-4-31b-assistant')}\n"
    assert "is complete and right; files of 300,009 bytes were not there yet" in said.err
    assert (folder(tmp_path) / BIG).read_bytes() == hub.files[BIG]


def test_pull_fetches_drafter(hub, tmp_path, capsys):
    assert run(["pull", *SPARK, "--drafter", "deckard-e4b"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert (tmp_path / "state" / "models" / "deckard-e4b" / BIG).is_file()
    assert hub.served(BIG) == 600_000


def test_dry_run_fetches_nothing(hub, tmp_path, capsys):
    assert run(["pull", *SPARK, "--dry-run"]) == 0
    assert "would    check or fetch 2 files, 300,009 bytes" in capsys.readouterr().err
    assert not folder(tmp_path).exists()
    assert hub.ranges == []


def test_locked_without_lock_is_refused(hub, capsys):
    assert run(["pull", *SPARK, "--locked"]) == 4
    assert "deckard-31b is not in deckard.lock" in capsys.readouterr().err
    assert hub.requests == []


def test_lock_decides_pulled_files(hub, tmp_path, capsys):
    assert run(["lock", *SPARK]) == 0
    hub.api_status = [(500, {})] * 99  # the lock knows: the hub's answer is not needed
    assert run(["pull", *SPARK, "--locked"]) == 0
    hub.files[BIG] = b"?" * 300_000
    (folder(tmp_path) / BIG).unlink()
    assert run(["pull", *SPARK, "--locked"]) == 4
    assert "the hub sent other bytes" in capsys.readouterr().err
    assert not (folder(tmp_path) / BIG).exists()


def test_repository_without_weights_exits_4(hub, capsys):
    del hub.files[BIG]
    assert run(["pull", *SPARK]) == 4
    assert "has no safetensors at aaaaaaaaaaaa" in capsys.readouterr().err


def test_second_pull_exits_8(hub, tmp_path, capsys):
    with ModelFolder(folder(tmp_path)).lock():
        assert run(["pull", *SPARK]) == 8
    assert "another deckard-deploy is pulling" in capsys.readouterr().err
    assert hub.ranges == []


def test_generated_model_is_written(tmp_path: Path, capsys):
    assert run(["pull", "--profile", "cpu", "--state-dir", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path}/models/tiny-gemma4\n"
    assert "write tiny-gemma4, which is generated" in captured.err
