"""Pulling from a real server that misbehaves. The control is huggingface_hub's own client."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from deckard_deploy.weights.folder import OURS, ModelFolder
from deckard_deploy.weights.manifest import Manifest
from deckard_deploy.weights.pull import Puller, pull
from deckard_deploy.weights.transfer import Pace
from tests.unit.weights.hub_server import COMMIT, REPO, Answer, Hub, content, running

BIG = "model.safetensors"
PACE = Pace(connections=4, segment_bytes=256 << 10, backoff_s=0.001, stall_s=60, retries=3)
IMPATIENT = replace(PACE, stall_s=0.5)  # for servers that stall; elsewhere a busy machine must not look like one


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    served = Hub({"config.json": b'{"a": 1}\n', BIG: content(2_000_001), "empty.txt": b"", "tool.py": b"print()\n"})
    with running(served):
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield served


class World:
    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder, self.said = hub, folder, list[str]()

    def pull(self, pace: Pace = PACE) -> int:
        manifest = hub_module.resolve(REPO, None, backoff_s=0.001)
        return pull(manifest, self.folder, Puller(self.said.append, lambda *_: None, pace))

    def assert_right(self) -> None:
        found = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and OURS not in path.parts
        }
        assert found == {name: data for name, data in self.hub.files.items() if name != "tool.py"}
        assert not (self.folder / OURS / "parts").exists()


@pytest.fixture
def world(hub: Hub, tmp_path: Path) -> World:
    return World(hub, tmp_path / "models" / "m")


def test_every_needed_file_comes_once(world: World):
    assert world.pull() == sum(len(data) for name, data in world.hub.files.items() if name != "tool.py")
    world.assert_right()
    assert world.hub.served(BIG) == len(world.hub.files[BIG])
    asked = len(world.hub.ranges)
    assert world.pull() == 0
    assert len(world.hub.ranges) == asked


def test_the_token_goes_to_the_hub_and_not_to_where_it_sends_on(world: World):
    other = Hub(world.hub.files)
    with running(other):

        def send_on(answer: Answer, name: str, _start: int, _end: int) -> bool:
            # another host by name, as a CDN is
            answer.reply(302, b"", {"Location": f"{other.url.replace('127.0.0.1', 'localhost')}/x/resolve/y/{name}"})
            return True

        world.hub.fault = send_on
        world.pull()
    world.assert_right()
    assert any(headers.get("Authorization") == "Bearer hf_secret" for headers in world.hub.requests)
    assert not any("Authorization" in headers for headers in other.requests)


def once(fault: Callable[[Answer, str, int, int], bool], times: int = 1) -> Callable[[Answer, str, int, int], bool]:
    left = [times]

    def limited(answer: Answer, name: str, start: int, end: int) -> bool:
        if name != BIG or not left[0]:
            return False
        left[0] -= 1
        return fault(answer, name, start, end)

    return limited


def cut_short(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end)
    answer.wfile.write(data[start : (start + end) // 2])
    answer.cut()
    return True


def stall(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end)
    answer.wfile.write(data[start : start + 100_000])
    answer.wfile.flush()
    answer.wait(2)
    answer.cut()
    return True


def drip(answer: Answer, name: str, start: int, end: int) -> bool:
    """A byte now and then: no socket timeout sees it."""
    data = answer.hub.files[name]
    answer.head(data, start, end)
    for byte in data[start : start + 20]:
        answer.wfile.write(bytes([byte]))
        answer.wait(0.1)
    answer.cut()
    return True


def status(code: int, **headers: str) -> Callable[[Answer, str, int, int], bool]:
    def fault(answer: Answer, _name: str, _start: int, _end: int) -> bool:
        answer.reply(code, b"oh no", {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


def wrong_range(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Range=f"bytes {start + 7}-{end + 6}/{len(data)}")
    answer.wfile.write(data[start:end])
    return True


def wrong_total(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Range=f"bytes {start}-{end - 1}/{len(data) + 1}")
    answer.wfile.write(data[start:end])
    return True


def flipped(answer: Answer, name: str, start: int, end: int) -> bool:
    data = bytearray(answer.hub.files[name])
    data[start] ^= 1
    answer.head(answer.hub.files[name], start, end)
    answer.wfile.write(data[start:end])
    return True


def whole_file(answer: Answer, name: str, _start: int, _end: int) -> bool:
    data = answer.hub.files[name]
    answer.reply(200, data, {"ETag": '"other"'})
    return True


def compressed(answer: Answer, name: str, start: int, end: int) -> bool:
    data = answer.hub.files[name]
    answer.head(data, start, end, Content_Encoding="gzip")
    answer.wfile.write(data[start:end])
    return True


RECOVERED = {
    "connection cut": once(cut_short, 5),
    "stall": once(stall),
    "drip": once(drip),
    "503": once(status(503), 3),
    "500 on each connection": once(status(500), 4),
    "429 with seconds": once(status(429, Retry_After="0"), 3),
    "429 with a date": once(status(429, Retry_After="Mon, 23 Nov 2020 10:00:00 GMT"), 3),
    "wrong Content-Range": once(wrong_range, 2),
    "wrong total": once(wrong_total, 2),
    "compressed": once(compressed, 2),
    "flipped bit": once(flipped),
    "whole file for a range, once": once(whole_file),
    "whole file for every range": once(whole_file, 10**6),
}


@pytest.mark.parametrize("name", RECOVERED)
def test_a_fault_that_passes_is_survived(world: World, name):
    world.hub.fault = RECOVERED[name]
    world.pull(replace(IMPATIENT, retries=50) if name in ("stall", "drip") else PACE)
    world.assert_right()


LASTING: dict[str, tuple[Callable[[Answer, str, int, int], bool], type[DeployError], str]] = {
    "503": (status(503), NetworkError, "HTTP 503, 4 times in a row"),
    "401": (status(401), NetworkError, "the hub refuses"),
    "403": (status(403), NetworkError, "the hub refuses"),
    "404": (status(404), NetworkError, "HTTP 404"),
    "login page": (status(200, Content_Type="text/html; charset=utf-8"), NetworkError, "HTML page"),
    "too short": (status(200), NetworkError, "bytes were expected"),
    "redirect to nowhere": (status(302, Location="gopher://x/"), NetworkError, "sends on to nowhere"),
    "flipped bit": (flipped, IntegrityError, "twice"),
    "stall": (drip, NetworkError, "stalled"),
    "wrong Content-Range": (wrong_range, NetworkError, "Content-Range is"),
}


@pytest.mark.parametrize(("fault", "error", "words"), LASTING.values(), ids=LASTING)
def test_a_lasting_fault_is_one_line_and_the_next_pull_goes_on(world: World, fault, error, words):
    world.hub.fault = lambda answer, name, start, end: name == BIG and fault(answer, name, start, end)
    with pytest.raises(error, match=words) as caught:
        world.pull(IMPATIENT if fault is drip else PACE)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert not (world.folder / BIG).exists()
    world.hub.fault = lambda *_: False
    world.pull()
    world.assert_right()


def test_the_hub_client_takes_a_flipped_bit_for_the_file(world: World, tmp_path: Path):
    """Control: why the hash is ours to check."""
    world.hub.fault = lambda answer, name, start, end: name == BIG and flipped(answer, name, start, end)
    script = f"import huggingface_hub; huggingface_hub.snapshot_download({REPO!r}, local_dir={str(tmp_path / 'hf')!r})"
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "hf" / BIG).read_bytes() != world.hub.files[BIG]
    world.hub.fault = lambda *_: False
    world.folder = tmp_path / "hf"
    assert world.pull() == len(world.hub.files[BIG])  # and we find it, and fetch that file alone
    assert any("not what was published" in line for line in world.said)


def test_what_the_hub_client_left_is_adopted_and_not_fetched(world: World):
    world.folder.mkdir(parents=True)
    (world.folder / BIG).write_bytes(world.hub.files[BIG])
    world.pull()
    world.assert_right()
    assert world.hub.served(BIG) == 0


def test_links_into_a_cache_become_files(world: World, tmp_path: Path):
    blob = tmp_path / "blob"
    blob.write_bytes(world.hub.files[BIG])
    world.folder.mkdir(parents=True)
    (world.folder / BIG).symlink_to(blob)
    (world.folder / "config.json").symlink_to("nowhere")
    world.pull()
    world.assert_right()
    assert not (world.folder / BIG).is_symlink()
    assert world.hub.served(BIG) == 0
    assert blob.read_bytes() == world.hub.files[BIG]


@pytest.mark.parametrize("good", [True, False])
def test_the_hub_clients_cache_is_taken_over_after_hashing(world: World, tmp_path: Path, good):
    snapshot = tmp_path / "hub-cache" / "models--owner--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    data = world.hub.files[BIG]
    (snapshot / BIG).write_bytes(data if good else data[:-1] + b"?")
    world.pull()
    world.assert_right()
    assert world.hub.served(BIG) == (0 if good else len(data))


def test_another_commit_replaces_the_file_without_quarantine(world: World):
    world.pull()
    world.hub.files[BIG] = content(1_000_000, seed=1)
    world.pull()
    world.assert_right()
    assert not (world.folder / OURS / "quarantine").exists()


def test_no_room_is_refused_before_the_first_byte(world: World, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(world.folder.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(EnvironmentUnfitError, match=r"needs 3,068,\d+ bytes, and 1,000,000 are free"):
        world.pull()
    assert world.hub.ranges == []


def test_a_disk_that_fills_up_keeps_what_came(world: World, monkeypatch: pytest.MonkeyPatch):
    real, room = os.pwrite, [600_000]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(EnvironmentUnfitError, match=r"needs [\d,]+ bytes more, and [\d,]+ are free"):
        world.pull()
    assert not (world.folder / BIG).exists()
    monkeypatch.setattr(os, "pwrite", real)
    before = world.hub.sent
    world.pull()
    world.assert_right()
    assert world.hub.sent - before < len(world.hub.files[BIG])


@pytest.mark.parametrize("call", ["fsync", "pwrite"])
def test_a_failing_disk_gives_no_file_its_name(world: World, monkeypatch: pytest.MonkeyPatch, call):
    manifest = hub_module.resolve(REPO, None)
    ModelFolder(world.folder).folder.mkdir(parents=True)

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, broken)
        with pytest.raises(EnvironmentUnfitError, match="Input/output error"):
            pull(manifest, world.folder, Puller(world.said.append, lambda *_: None, PACE))
    assert not (world.folder / BIG).exists()
    world.pull()
    world.assert_right()


def test_a_hub_that_is_down(world: World, monkeypatch: pytest.MonkeyPatch):
    manifest = hub_module.resolve(REPO, None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match="does not answer"):
        hub_module.resolve(REPO, None, backoff_s=0.001)
    with pytest.raises(NetworkError, match="4 times in a row") as caught:
        pull(manifest, world.folder, Puller(world.said.append, lambda *_: None, PACE))
    assert "\n" not in caught.value.message


def test_a_proxy_that_refuses_is_named_without_its_password(world: World, monkeypatch: pytest.MonkeyPatch):
    manifest = hub_module.resolve(REPO, None)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(NetworkError, match=r"HTTP_PROXY is http://127\.0\.0\.1:9") as caught:
        pull(manifest, world.folder, Puller(world.said.append, lambda *_: None, PACE))
    assert "secret" not in caught.value.message


def test_a_record_that_lies_about_another_file_is_not_believed(world: World):
    world.pull()
    (world.folder / OURS / "record.json").write_text("{")
    assert world.pull() == 0
    world.assert_right()


def test_a_second_puller_leaves_at_once(world: World):
    with (
        ModelFolder(world.folder).held(),
        pytest.raises(DeploymentBusyError, match="another deckard-deploy is pulling"),
    ):
        world.pull()
    world.pull()
    world.assert_right()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(403, {"X-Error-Code": "GatedRepo"})], "is gated"),
        ([(404, {"X-Error-Code": "RevisionNotFound"})], "has no revision"),
        ([(401, {})], "is not at"),
        ([(500, {})] * 4, "answered HTTP 500"),
        ([(200, {})], "describes owner/model oddly|not as a hub does"),
    ],
)
def test_a_hub_that_does_not_say_what_it_has(world: World, answers, words):
    world.hub.api_status = list(answers)
    with pytest.raises((NetworkError, IntegrityError), match=words) as caught:
        world.pull()
    assert caught.value.hint


def test_metadata_is_asked_for_again_after_a_5xx(world: World):
    world.hub.api_status = [(500, {}), (503, {})]
    world.pull()
    world.assert_right()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ".deckard/record.json", "a\\b", "a\nb", "", "./a"])
def test_a_listing_that_leaves_the_folder_is_refused(world: World, path):
    world.hub.files[path] = b"x"
    with pytest.raises(IntegrityError, match="oddly"):
        world.pull()


@pytest.mark.parametrize("endpoint", ["ftp://x", "nonsense", "http://user:secret@host"])
def test_an_endpoint_that_is_none(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(DeployError, match="HF_ENDPOINT") as caught:
        hub_module.resolve(REPO, None)
    assert "secret" not in caught.value.message


def test_the_manifest_says_commit_and_hashes(hub: Hub):
    manifest = hub_module.resolve(REPO, None)
    assert isinstance(manifest, Manifest)
    assert manifest.commit == COMMIT
    assert {file.path: bool(file.sha256) for file in manifest.files} == {
        name: name != "config.json" for name in hub.files
    }
