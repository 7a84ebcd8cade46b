"""Options, deckard.yaml and this machine, resolved into one choice."""

from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.choice import resolve_choice
from deckard_deploy.operations.options import Choice
from tests.support.fake_machine import machine
from tests.support.recording_reporter import RecordingReporter

__all__ = ["machine"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, which has no deckard.yaml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_option_wins_over_deckard_yaml(folder: Path, report: RecordingReporter) -> None:
    (folder / "deckard.yaml").write_text("profile: spark\nname: mine\n")
    assert resolve_choice(Choice(), report).profile.name == "spark"
    resolved = resolve_choice(Choice(profile="b200", settings=("name=other",)), report)
    assert (resolved.profile.name, resolved.name) == ("b200", "other")
    assert report.lines == ["config   ./deckard.yaml"] * 2


def test_named_file_replaces_deckard_yaml(folder: Path, report: RecordingReporter) -> None:
    (folder / "deckard.yaml").write_text("profile: spark\n")
    (folder / "other.yaml").write_text("profile: b200\n")
    assert resolve_choice(Choice(config=folder / "other.yaml"), report).profile.name == "b200"


def test_refused_option_names_file_and_line(folder: Path, report: RecordingReporter) -> None:
    (folder / "deckard.yaml").write_text("profile: spark\nserve:\n  max-model-len: 32k\n")
    with pytest.raises(
        BadInputError, match=r"^deckard.yaml:3: serve.max-model-len: --max-model-len '32k': a"
    ):
        resolve_choice(Choice(), report)
    with pytest.raises(BadInputError, match=r"^--set max-num-seqs=x: --max-num-seqs 'x': a whole number was"):
        resolve_choice(Choice(profile="b200", settings=("max-model-len=32768", "max-num-seqs=x")), report)


def test_quoted_number_is_explained(folder: Path, report: RecordingReporter) -> None:
    (folder / "deckard.yaml").write_text('publish:\n  port: "9000"\n')
    with pytest.raises(BadInputError, match="port: '9000': a whole number was expected, without quotes"):
        resolve_choice(Choice(), report)


def test_dangling_deckard_yaml_is_refused(folder: Path, report: RecordingReporter) -> None:
    (folder / "deckard.yaml").symlink_to("gone.yaml")
    with pytest.raises(BadInputError, match=r"deckard\.yaml"):
        resolve_choice(Choice(profile="spark"), report)


def test_profile_may_be_a_file(folder: Path, report: RecordingReporter) -> None:
    with pytest.raises(BadInputError, match=r"none\.yaml"):
        resolve_choice(Choice(profile=str(folder / "none.yaml")), report)


def test_compat_names_its_profile(report: RecordingReporter) -> None:
    resolved = resolve_choice(Choice(compat="seed"), report)
    assert resolved.compatibility
    assert resolved.profile.name == resolved.compatibility.profile


def test_missing_profile_is_refused(report: RecordingReporter) -> None:
    with pytest.raises(BadInputError, match="no hardware profile was named; known: "):
        resolve_choice(Choice(), report)


@pytest.mark.usefixtures("machine")
def test_detected_profile_is_reported(report: RecordingReporter) -> None:
    assert resolve_choice(Choice(detect=True), report).profile.name == "cpu"
    assert report.lines == [
        "profile  cpu: no NVIDIA GPU here, so a tiny model to rehearse with; another: --profile NAME"
    ]
