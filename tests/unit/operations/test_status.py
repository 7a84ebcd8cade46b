"""The facts of `status`."""

import os
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.cli.main import run
from deckard_deploy.operations.status import changed_weights
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.running.layout import StateDir
from tests.support.hub_server import Hub
from tests.support.model_hub import BIG

SPARK = ["--profile", "spark"]


@pytest.fixture
def weights(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["pull", *SPARK]) == 0
    assert hub.served(BIG) == 300_000
    capsys.readouterr()
    return tmp_path / "state" / "models" / "deckard-31b" / BIG


def flip(path: Path, *, keep_times: bool) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(1234)
        byte = file.read(1)
        file.seek(1234)
        file.write(bytes([byte[0] ^ 1]))
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_changed_weights_names_changed_file(weights: Path):
    directory = StateDir(weights.parents[2])
    plan = build_plan(resolve(Deployment(), profile=library.profile("spark")))
    assert changed_weights(plan, directory) is None
    flip(weights, keep_times=True)
    assert changed_weights(plan, directory) == [f"deckard-31b/{BIG}"]
