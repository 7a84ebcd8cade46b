"""One file over several connections, from a real server on loopback."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from deckard_deploy.errors import NetworkError
from deckard_deploy.weights.manifest import RemoteFile
from deckard_deploy.weights.partial import Partial
from deckard_deploy.weights.transfer import Remote, Transfer, TransferSettings
from tests.support.hub_server import COMMIT, REPO, Hub, content, running

NAME = "model.safetensors"
DATA = content(500_000)
SEGMENT = 100_000
SETTINGS = TransferSettings(connections=3, segment_bytes=SEGMENT, retries=2, backoff_s=0.001, stall_s=60)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub({NAME: DATA})) as served:
        yield served


@pytest.fixture
def partial(tmp_path: Path) -> Iterator[Partial]:
    file = RemoteFile(path=NAME, size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    opened = Partial(tmp_path, file, segment_bytes=SEGMENT)
    yield opened
    opened.close()


def transfer(hub: Hub, partial: Partial, *, said: list[str] | None = None) -> Transfer:
    file = RemoteFile(path=NAME, size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    url = f"{hub.url}/{REPO}/resolve/{COMMIT}/{NAME}"
    say = said.append if said is not None else lambda _: None
    return Transfer(Remote(url, SecretStr("hf_secret"), file), partial, SETTINGS, say=say)


def test_file_arrives_in_segments(hub: Hub, partial: Partial):
    progress: list[int] = []
    assert transfer(hub, partial).run(progress.append) == hashlib.sha256(DATA).hexdigest()
    assert partial.read(0, len(DATA)) == DATA
    assert sorted(start for _, start, _ in hub.ranges) == list(range(0, len(DATA), SEGMENT))
    assert progress == sorted(progress)
    assert progress[-1] == len(DATA)


def test_token_is_sent_and_compression_refused(hub: Hub, partial: Partial):
    transfer(hub, partial).run(lambda _: None)
    assert {each["Authorization"] for each in hub.requests} == {"Bearer hf_secret"}
    assert {each["Accept-Encoding"] for each in hub.requests} == {"identity"}


def test_only_missing_bytes_are_requested(hub: Hub, partial: Partial):
    partial.append(0, memoryview(DATA[:SEGMENT]))
    partial.append(2, memoryview(DATA[2 * SEGMENT : 2 * SEGMENT + 7]))
    transfer(hub, partial).run(lambda _: None)
    starts = sorted(start for _, start, _ in hub.ranges)
    assert starts == [SEGMENT, 2 * SEGMENT + 7, 3 * SEGMENT, 4 * SEGMENT]


def test_lasting_fault_ends_after_retries(hub: Hub, partial: Partial):
    def refuse(answer, _name: str, _start: int, _end: int) -> bool:
        answer.reply(503, b"", {})
        return True

    hub.fault = refuse
    with pytest.raises(NetworkError, match=f"{NAME}: HTTP 503, 3 times in a row") as caught:
        transfer(hub, partial).run(lambda _: None)
    assert "goes on where it stopped" in caught.value.hint


def test_server_without_ranges_sends_the_whole_file(hub: Hub, partial: Partial):
    def whole(answer, name: str, _start: int, _end: int) -> bool:
        answer.reply(200, hub.files[name], {})
        return True

    hub.fault = whole
    said: list[str] = []
    assert transfer(hub, partial, said=said).run(lambda _: None) == hashlib.sha256(DATA).hexdigest()
    assert "knows no ranges" in said[0]
