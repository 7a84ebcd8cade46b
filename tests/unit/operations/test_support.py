"""`support`: what is in the archive, and what is not."""

import os
import tarfile
from pathlib import Path

import pytest

from deckard_deploy.operations import support
from deckard_deploy.operations.options import Selection
from deckard_deploy.running.layout import StateDir
from tests.support.fake_deployment import FakeDeployment

ENVIRONMENT = {"HOME": "/home/alice", "USER": "alice", "PATH": os.environ["PATH"]}


def redaction(text: str) -> str:
    found = support._Redaction(
        lambda said: said.replace("hunter22", "[secret]"), ENVIRONMENT, StateDir(Path("/srv/d"))
    )
    return found.text(text).rstrip("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/alice/models/x", "~/models/x"),
        ("user alice failed", "user USER failed"),
        ("malice and alice-2", "malice and alice-2"),
        ("/srv/d/deployments/one", "STATE/deployments/one"),
        ("token hunter22", "token [secret]"),
        ("http://me:pass@proxy:3128", "http://[secret]@proxy:3128"),
        ("192.168.1.20:8000 and 127.0.0.1:8000", "ADDRESS:8000 and 127.0.0.1:8000"),
        ("driver 580.95.05, kernel 6.17.0", "driver 580.95.05, kernel 6.17.0"),
        ("INFO Received request chatcmpl-1: prompt: 'my secret plan'", ""),
        ('{"messages": [{"role": "user"}]}', ""),
        ("ERROR EngineCore failed to start.", "ERROR EngineCore failed to start."),
    ],
)
def test_text_is_redacted(text: str, expected: str):
    assert redaction(text) == expected


def test_archive_has_the_files_that_were_listed(fake: FakeDeployment, report, tmp_path: Path):
    files = support.collect(
        Selection(fake.state.root), report, redact=lambda text: text, environment=ENVIRONMENT
    )
    names = [file.name for file in files]
    assert names[:3] == ["versions.txt", "facts.json", "doctor.txt"]
    path = tmp_path / "a.tar.gz"
    support.write_archive(files, path)
    with tarfile.open(path) as archive:
        assert archive.getnames() == [f"deckard-support/{name}" for name in names]
    assert path.stat().st_mode & 0o777 == 0o600


def test_machine_without_deployments_has_facts_only(report, tmp_path: Path):
    selection = Selection(state_dir=tmp_path)
    files = support.collect(selection, report, redact=lambda text: text, environment=ENVIRONMENT)
    assert [file.name for file in files] == ["versions.txt", "facts.json", "doctor.txt"]
