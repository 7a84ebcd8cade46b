"""`adopt`: what it refuses before docker is asked. tests/e2e/test_rendered_folder.py adopts a real stack."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations import adopt
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.render_folder import write_folder
from deckard_deploy.operations.reporting import SILENT

H200 = Choice(profile="h200", settings=("engine=vllm-0.32.0",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(H200, tmp_path / "a", SILENT)
    return tmp_path / "a"


def test_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "compose.yaml").write_text("services: {}\n")
    with pytest.raises(IntegrityError, match=r"compose\.yaml: changed by hand"):
        adopt.run(folder, tmp_path / "state", SILENT)
    assert not (tmp_path / "state").exists()


def test_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="was not written by `render all`"):
        adopt.run(tmp_path, tmp_path / "state", SILENT)
    assert not (tmp_path / "state").exists()
