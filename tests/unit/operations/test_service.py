"""`service`: what it refuses, and the sentence about a reboot."""

import pytest

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.operations import service
from deckard_deploy.operations.options import Selection
from deckard_deploy.running.service import has_systemd
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter

PROGRAM = ("/bin/true",)


def select(fake: FakeDeployment) -> Selection:
    return Selection(fake.state.root, "box")


def test_deployment_that_was_never_ready_is_refused(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.stored(fake.plan())
    with pytest.raises(BadInputError, match="was never proven ready"):
        service.install(select(fake), report, program=PROGRAM)


@pytest.mark.parametrize(
    ("program", "error", "says"),
    [
        ("/a b/deckard", BadInputError, "by a path of letters"),
        ("deckard", BadInputError, "by a path of letters"),
        ("/absent/deckard", EnvironmentUnfitError, "is no program"),
    ],
)
def test_program_that_systemd_cannot_start(
    fake: FakeDeployment, report: RecordingReporter, program: str, error: type[Exception], says: str
) -> None:
    fake.proven(fake.plan())
    with pytest.raises(error, match=says):
        service.install(select(fake), report, program=(program,))


def test_dry_run_names_file(fake: FakeDeployment, report: RecordingReporter) -> None:
    fake.proven(fake.plan())
    found = service.install(select(fake), report, program=PROGRAM, dry_run=True)
    assert found.file.name == "deckard-box.service"
    assert not found.file.exists()
    service.remove(select(fake), report, dry_run=True)
    assert report.lines == [
        f"would    write, enable and start {found.file}",
        f"{found.file} does not exist",
    ]


def test_sentence_says_how_to_come_back(fake: FakeDeployment) -> None:
    sentence = service.boot_sentence(fake.plan())
    command = "service install --name box" if has_systemd() else "deckard-deploy watch --name box"
    assert sentence.startswith("reboot   it does not start by itself")
    assert command in sentence
