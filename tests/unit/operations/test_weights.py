"""The weights of a choice: pulled, verified, and of one vocabulary."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.weights import ensure_weights, remove_generated, require_same_vocabulary
from deckard_deploy.running.layout import StateDir
from deckard_deploy.system.extras import install_command
from tests.support.model_hub import BIG
from tests.support.recording_reporter import RecordingReporter
from tests.support.sample_choices import choice


def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "models" / "deckard-31b"


def test_ensure_weights_asks_hub_once(hub, tmp_path):
    resolved = resolve(Deployment(), profile=library.profile("spark"))
    directory = StateDir(tmp_path / "state")
    ensure_weights(resolved, directory, SILENT)
    assert (folder(tmp_path) / BIG).read_bytes() == hub.files[BIG]
    asked = len(hub.requests)
    ensure_weights(resolved, directory, SILENT)
    assert len(hub.requests) == asked
    (folder(tmp_path) / BIG).write_bytes(b"?" * 300_000)  # same size: found, set aside, fetched again
    ensure_weights(resolved, directory, SILENT)
    assert (folder(tmp_path) / BIG).read_bytes() == hub.files[BIG]


def test_drafter_with_other_vocabulary_is_refused(tmp_path: Path) -> None:
    for name, config in {
        "a": {"text_config": {"vocab_size": 262144}},
        "b": {"vocab_size": 512},
        "c": {},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    with pytest.raises(IntegrityError, match=r"has a vocabulary of 512 tokens, and the model one of 262144"):
        require_same_vocabulary(tmp_path / "a", tmp_path / "b")
    require_same_vocabulary(tmp_path / "a", tmp_path / "a")
    require_same_vocabulary(tmp_path / "a", tmp_path / "c")


def test_generated_model_is_written_and_removed(tmp_path: Path, report: RecordingReporter) -> None:
    directory = StateDir(tmp_path)
    ensure_weights(choice("cpu"), directory, report)
    folder = directory.models / "tiny-gemma4"
    assert (folder / "model.safetensors").is_file()
    assert report.lines == [f"weights  tiny-gemma4 in {folder}"]
    remove_generated(directory, report)
    assert report.lines[-1] == f"removed  {folder}"
    assert not folder.exists()


def test_compat_needs_a_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: RecordingReporter
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    resolved = resolve_choice(Choice(compat="seed"), report)
    with pytest.raises(EnvironmentUnfitError, match="no weights in ") as refused:
        ensure_weights(resolved, StateDir(tmp_path / "state"), report)
    assert str(refused.value.hint).startswith("hf download ")


WITHOUT_NUMPY = """
import sys
from pathlib import Path
sys.modules["numpy"] = None
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.operations.weights import ensure_weights
from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.running.layout import StateDir
try:
    ensure_weights(resolve_choice(Choice(profile="cpu"), SILENT), StateDir(Path(sys.argv[1])), SILENT)
except EnvironmentUnfitError as error:
    print(error.message, error.hint)
"""


def test_missing_library_is_named_with_pip_command(tmp_path: Path) -> None:
    """In another process: this one has imported numpy."""
    command = [sys.executable, "-c", WITHOUT_NUMPY, str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "numpy is not installed" in done.stdout
    assert install_command("cpu") in done.stdout
    assert not (tmp_path / "state" / "models").exists()
