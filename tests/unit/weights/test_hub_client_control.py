"""Controls: what huggingface_hub's own client does where the transfer here goes on. They fail once it has learnt it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from deckard_deploy.weights import hub as hub_module
from deckard_deploy.weights.pull import Puller, pull
from deckard_deploy.weights.transfer import Pace
from tests.unit.weights.hub_server import REPO, Answer, Hub, content, running

NAME = "model.safetensors"
DATA = content(3_000_000)


def client(hub: Hub, root: Path) -> "subprocess.Popen[bytes]":
    script = f"import huggingface_hub; huggingface_hub.snapshot_download({REPO!r}, local_dir={str(root / 'hf')!r})"
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(root / "home"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.Popen([sys.executable, "-c", script], env=os.environ | own, stderr=subprocess.DEVNULL)


def ours(monkeypatch, hub: Hub, folder: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    pace = Pace(connections=1, backoff_s=0.001)
    pull(hub_module.resolve(REPO, None), folder, Puller(lambda _: None, lambda *_: None, pace))


def once(fault: Callable[[Answer, int, int], None]) -> Callable[[Answer, str, int, int], bool]:
    left = [1]

    def limited(answer: Answer, name: str, start: int, end: int) -> bool:
        if name != NAME or not left:
            return False
        left.pop()
        fault(answer, start, end)
        return True

    return limited


def test_one_500_ends_its_download(tmp_path, monkeypatch):
    hub = Hub({NAME: DATA})
    with running(hub):
        hub.fault = once(lambda answer, _start, _end: answer.reply(500, b"", {}))
        assert client(hub, tmp_path).wait(timeout=60) != 0
        hub.fault = once(lambda answer, _start, _end: answer.reply(500, b"", {}))
        ours(monkeypatch, hub, tmp_path / "m")
    assert (tmp_path / "m" / NAME).read_bytes() == DATA


def test_a_kill_makes_it_begin_again_and_leave_the_first_half(tmp_path):
    hub = Hub({NAME: DATA})
    half = 2 << 20

    def half_then_kill(answer: Answer, start: int, end: int) -> None:
        answer.head(DATA, start, end)
        answer.wfile.write(DATA[start : start + half])
        answer.wait(1)
        process.send_signal(signal.SIGKILL)

    with running(hub):
        hub.fault = once(half_then_kill)
        process = client(hub, tmp_path)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert client(hub, tmp_path).wait(timeout=60) == 0
    assert hub.ranges == [(NAME, 0, len(DATA))] * 2
    assert len(list((tmp_path / "hf").rglob("*.incomplete"))) == 1
