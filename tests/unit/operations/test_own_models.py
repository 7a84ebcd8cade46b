"""Models that a user keeps under a name."""

import json
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.specs import HubRepository
from deckard_deploy.cli.main import run
from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.catalog import entry_source
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.inspect import checkpoint_folder
from deckard_deploy.operations.models import find_model
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.own_models import add_model, list_models, remove_model
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.running.layout import StateDir
from tests.support.hub_server import COMMIT, Hub, running
from tests.support.recording_reporter import RecordingReporter


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return gemma4.write(tmp_path / "My Model", quantization="nvfp4_awq")


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


def test_added_folder_is_found_by_its_name(tiny: Path, state: StateDir, report: RecordingReporter) -> None:
    path = add_model("mine", str(tiny), state.root, report)
    model = find_model("mine", state, report)
    derived = find_model(str(tiny), state, report)
    assert model == derived.model_copy(update={"name": "mine", "served_name": "mine"})
    assert entry_source("models", "mine", state.root) == path.read_text()
    assert checkpoint_folder("mine", state) == tiny


def test_added_repository_keeps_its_commit(
    tiny: Path, state: StateDir, report: RecordingReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub({path.name: path.read_bytes() for path in tiny.iterdir() if path.is_file()})
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        add_model("mine", "owner/model", state.root, report)
    model = find_model("mine", state, report)
    assert model.weights == HubRepository(repo="owner/model", revision=COMMIT)


def test_edited_file_is_another_request(tiny: Path, state: StateDir, report: RecordingReporter) -> None:
    path = add_model("mine", str(tiny), state.root, report)
    choice = Choice(profile="cpu", settings=("model=mine",))
    before = resolve_choice(choice, report, state).asked
    assert resolve_choice(choice, report, state).asked == before
    path.write_text(path.read_text().replace("served_name: mine", "served_name: other"))
    assert resolve_choice(choice, report, state).asked != before


def test_model_of_the_catalog_is_asked_by_name_alone(state: StateDir, report: RecordingReporter) -> None:
    asked = resolve_choice(Choice(profile="cpu"), report, state).asked
    assert json.loads(asked)["model"] is None


def test_model_file_is_added_as_it_is(tmp_path: Path, state: StateDir, report: RecordingReporter) -> None:
    spec = library.model("gemma-4-31b-it")
    file = tmp_path / "file.yaml"
    file.write_text(spec.model_dump_json())
    add_model("mine", str(file), state.root, report)
    assert find_model("mine", state, report) == spec.model_copy(update={"name": "mine"})


def test_taken_name_is_refused(tiny: Path, state: StateDir, report: RecordingReporter) -> None:
    add_model("mine", str(tiny), state.root, report)
    for name, message in {
        "mine": "is there already",
        "tiny-gemma4": "a model of the catalog",
        "Mine": "is no model name",
        "-a": "is no model name",
    }.items():
        with pytest.raises(BadInputError, match=message):
            add_model(name, str(tiny), state.root, report)
    assert [path.name for path in state.own_models.iterdir()] == ["mine.yaml"]


def test_refused_folder_adds_nothing(tmp_path: Path, state: StateDir, report: RecordingReporter) -> None:
    with pytest.raises(BadInputError):
        add_model("mine", str(tmp_path / "nothing"), state.root, report)
    assert not state.root.exists()


def test_damaged_file_is_listed_with_its_fault(
    tiny: Path, state: StateDir, report: RecordingReporter
) -> None:
    add_model("mine", str(tiny), state.root, report)
    add_model("other", str(tiny), state.root, report)
    (state.own_models / "other.yaml").write_text("name: [")
    (name, description), (other, fault) = list_models(state.root)
    assert (name, other) == ("mine", "other")
    assert description.startswith("Gemma4ForConditionalGeneration, nvfp4_awq")
    assert fault.startswith("damaged: ")
    assert remove_model("other", state.root) is None
    assert [name for name, _ in list_models(state.root)] == ["mine"]


def test_removed_model_keeps_its_weights(tiny: Path, state: StateDir, report: RecordingReporter) -> None:
    add_model("mine", str(tiny), state.root, report)
    assert remove_model("mine", state.root) == tiny
    assert (tiny / "config.json").is_file()
    with pytest.raises(BadInputError, match="no model named 'mine'"):
        find_model("mine", state, report)
    with pytest.raises(BadInputError, match="was added"):
        remove_model("mine", state.root)


def test_commands_add_list_and_remove(
    tiny: Path, state: StateDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DECKARD_HOME", str(state.root))
    assert run(["models", "add", "mine", str(tiny)]) == 0
    capsys.readouterr()
    assert run(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["name"] == "mine"
    assert run(["render", "command", "--profile", "cpu", "--model", "mine"]) == 0  # without --state-dir
    assert str(tiny) in capsys.readouterr().out
    assert run(["models", "remove", "mine"]) == 0
    assert f"its weights stay in {tiny}" in capsys.readouterr().err
