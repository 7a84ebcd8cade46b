"""Pulls with unexpected files in the folder, failures of the disk, and odd answers of the hub."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import (
    DeployError,
    DeploymentBusyError,
    EnvironmentUnfitError,
    IntegrityError,
    NetworkError,
)
from deckard_deploy.weights import hub as hub_module
from deckard_deploy.weights.folder import PRIVATE_FOLDER, ModelFolder
from deckard_deploy.weights.manifest import Manifest
from deckard_deploy.weights.pull import PullReporter, pull
from tests.support.hub_server import COMMIT, REPO, Hub, content, flipped
from tests.support.pull_folder import BIG, PACE, PullFolder


def test_hub_client_accepts_a_flipped_bit(pull_folder: PullFolder, tmp_path: Path):
    """Control: huggingface_hub does not check the hash, so the pull must."""
    pull_folder.hub.fault = lambda answer, name, start, end: name == BIG and flipped(answer, name, start, end)
    arguments = f"{REPO!r}, local_dir={str(tmp_path / 'hf')!r}"
    script = f"import huggingface_hub; huggingface_hub.snapshot_download({arguments})"
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, timeout=60
    )
    assert (tmp_path / "hf" / BIG).read_bytes() != pull_folder.hub.files[BIG]
    pull_folder.hub.fault = lambda *_: False
    pull_folder.folder = tmp_path / "hf"
    assert pull_folder.pull() == len(pull_folder.hub.files[BIG])  # only that file is fetched again
    assert any("not what was published" in line for line in pull_folder.said)


def test_pull_adopts_files_of_the_hub_client(pull_folder: PullFolder):
    pull_folder.folder.mkdir(parents=True)
    (pull_folder.folder / BIG).write_bytes(pull_folder.hub.files[BIG])
    pull_folder.pull()
    pull_folder.assert_right()
    assert pull_folder.hub.served(BIG) == 0


def test_folder_in_place_of_file_is_quarantined(pull_folder: PullFolder):
    for number in range(3):
        (pull_folder.folder / BIG).unlink(missing_ok=True)
        (pull_folder.folder / BIG).mkdir(parents=True)
        (pull_folder.folder / BIG / f"{number}").write_text("x")
        pull_folder.pull()
        pull_folder.assert_right()
    aside = pull_folder.folder / PRIVATE_FOLDER / "quarantine"
    assert {str(path.relative_to(aside)) for path in aside.rglob("?")} == {
        f"{BIG}{'~' * n}/{n}" for n in range(3)
    }


def test_linked_partial_does_not_overwrite_target(pull_folder: PullFolder, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (file,) = (one for one in hub_module.connect().resolve(REPO, None).needed if one.path == BIG)
    (pull_folder.folder / PRIVATE_FOLDER / "parts").mkdir(parents=True)
    (pull_folder.folder / PRIVATE_FOLDER / "parts" / f"{file.digest}.part").symlink_to(victim)
    with pytest.raises(EnvironmentUnfitError, match="Too many levels of symbolic links"):
        pull_folder.pull()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("also", ["config.json", "config.json/inside"])
def test_conflicting_paths_are_refused(pull_folder: PullFolder, also: str):
    listed = pull_folder.hub.siblings()
    entry = {"rfilename": also, "size": 1, "blobId": "b" * 40}
    pull_folder.hub.siblings = lambda: [*listed, entry]  # type: ignore[method-assign]
    with pytest.raises(
        IntegrityError, match="oddly: the whole: a path is listed twice, or is both a file and a folder"
    ):
        pull_folder.pull()
    assert pull_folder.hub.sent == 0


@pytest.mark.parametrize("good", [True, False])
def test_pull_adopts_hub_cache_only_if_hash_is_right(pull_folder: PullFolder, tmp_path: Path, good):
    snapshot = tmp_path / "hub-cache" / "models--owner--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    data = pull_folder.hub.files[BIG]
    (snapshot / BIG).write_bytes(data if good else data[:-1] + b"?")
    pull_folder.pull()
    pull_folder.assert_right()
    assert pull_folder.hub.served(BIG) == (0 if good else len(data))


def test_new_commit_replaces_file_without_quarantine(pull_folder: PullFolder):
    pull_folder.pull()
    pull_folder.hub.files[BIG] = content(1_000_000, seed=1)
    pull_folder.pull()
    pull_folder.assert_right()
    assert not (pull_folder.folder / PRIVATE_FOLDER / "quarantine").exists()


def test_full_disk_is_refused_before_first_request(pull_folder: PullFolder, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(pull_folder.folder.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(EnvironmentUnfitError, match=r"needs 3,068,\d+ bytes, and 1,000,000 are free"):
        pull_folder.pull()
    assert pull_folder.hub.ranges == []


def test_pull_resumes_after_disk_fills_up(pull_folder: PullFolder, monkeypatch: pytest.MonkeyPatch):
    real, room = os.pwrite, [600_000]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(EnvironmentUnfitError, match=r"needs [\d,]+ bytes more, and [\d,]+ are free"):
        pull_folder.pull()
    assert not (pull_folder.folder / BIG).exists()
    monkeypatch.setattr(os, "pwrite", real)
    before = pull_folder.hub.sent
    pull_folder.pull()
    pull_folder.assert_right()
    assert pull_folder.hub.sent - before < len(pull_folder.hub.files[BIG])


@pytest.mark.parametrize("call", ["fsync", "pwrite"])
def test_failing_disk_leaves_no_final_name(pull_folder: PullFolder, monkeypatch: pytest.MonkeyPatch, call):
    manifest = hub_module.connect().resolve(REPO, None)
    ModelFolder(pull_folder.folder).folder.mkdir(parents=True)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        with pytest.raises(EnvironmentUnfitError, match="Input/output error"):
            pull(manifest, pull_folder.folder, PullReporter(pull_folder.said.append, lambda *_: None, PACE))
    assert not (pull_folder.folder / BIG).exists()
    pull_folder.pull()
    pull_folder.assert_right()


def test_unreachable_hub_is_network_error(pull_folder: PullFolder, monkeypatch: pytest.MonkeyPatch):
    manifest = hub_module.connect().resolve(REPO, None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match="does not answer"):
        hub_module.connect().resolve(REPO, None, backoff_s=0.001)
    with pytest.raises(NetworkError, match="4 times in a row") as caught:
        pull(manifest, pull_folder.folder, PullReporter(pull_folder.said.append, lambda *_: None, PACE))
    assert "\n" not in caught.value.message


def test_refusing_proxy_is_named_without_password(pull_folder: PullFolder, monkeypatch: pytest.MonkeyPatch):
    manifest = hub_module.connect().resolve(REPO, None)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(NetworkError, match=r"HTTP_PROXY is http://127\.0\.0\.1:9") as caught:
        pull(manifest, pull_folder.folder, PullReporter(pull_folder.said.append, lambda *_: None, PACE))
    assert "secret" not in caught.value.message


def test_damaged_record_causes_rehash_not_refetch(pull_folder: PullFolder):
    pull_folder.pull()
    (pull_folder.folder / PRIVATE_FOLDER / "record.json").write_text("{")
    assert pull_folder.pull() == 0
    pull_folder.assert_right()


def test_second_pull_is_busy_error(pull_folder: PullFolder):
    with (
        ModelFolder(pull_folder.folder).lock(),
        pytest.raises(DeploymentBusyError, match="another deckard-deploy is pulling"),
    ):
        pull_folder.pull()
    pull_folder.pull()
    pull_folder.assert_right()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(403, {"X-Error-Code": "GatedRepo"})], "is gated"),
        ([(404, {"X-Error-Code": "RevisionNotFound"})], "has no revision"),
        ([(401, {})], "does not accept the token"),
        ([(500, {})] * 4, "answered HTTP 500"),
        ([(200, {})], "describes owner/model oddly|not as a hub does"),
    ],
)
def test_hub_errors_name_cause_and_hint(pull_folder: PullFolder, answers, words):
    pull_folder.hub.api_status = list(answers)
    with pytest.raises((NetworkError, IntegrityError), match=words) as caught:
        pull_folder.pull()
    assert caught.value.hint


def test_metadata_request_is_retried_after_5xx(pull_folder: PullFolder):
    pull_folder.hub.api_status = [(500, {}), (503, {})]
    pull_folder.pull()
    pull_folder.assert_right()


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", ".deckard/record.json", "a\\b", "a\nb", "", "./a"]
)
def test_listing_outside_the_folder_is_refused(pull_folder: PullFolder, path):
    pull_folder.hub.files[path] = b"x"
    with pytest.raises(IntegrityError, match="oddly"):
        pull_folder.pull()


@pytest.mark.parametrize(
    "endpoint", ["ftp://x", "nonsense", "http://user:secret@host", "http://[::1", "http://h:99999"]
)
def test_invalid_endpoint_is_refused(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(DeployError, match="HF_ENDPOINT") as caught:
        hub_module.connect().resolve(REPO, None)
    assert "secret" not in caught.value.message


def test_manifest_has_commit_and_hashes(hub: Hub):
    manifest = hub_module.connect().resolve(REPO, None)
    assert isinstance(manifest, Manifest)
    assert manifest.commit == COMMIT
    assert {file.path: bool(file.sha256) for file in manifest.files} == {
        name: name != "config.json" for name in hub.files
    }


@pytest.mark.parametrize("name", ["manifest.json", "record.json"])
def test_pull_refuses_device_in_place_of_metadata(pull_folder: PullFolder, name: str):
    pull_folder.pull()
    (pull_folder.folder / PRIVATE_FOLDER / name).unlink()
    (pull_folder.folder / PRIVATE_FOLDER / name).symlink_to("/dev/null")
    with pytest.raises(IntegrityError, match=rf"{name}: not a regular file"):
        pull_folder.pull()
