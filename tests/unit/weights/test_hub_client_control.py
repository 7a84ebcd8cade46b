"""Controls: huggingface_hub's own client fails where our transfer resumes.

A failing control means that the client has learnt it, and that our transfer may be obsolete.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deckard_deploy.weights import hub as hub_module
from deckard_deploy.weights.pull import PullReporter, pull
from deckard_deploy.weights.transfer import TransferSettings
from tests.support.hub_server import REPO, Answer, Hub, content, running

pytestmark = pytest.mark.slow
NAME = "model.safetensors"
DATA = content(3_000_000)


def client(hub: Hub, root: Path, *, xet: bool = False) -> "subprocess.Popen[bytes]":
    script = (
        f"import huggingface_hub; huggingface_hub.snapshot_download({REPO!r}, local_dir={str(root / 'hf')!r})"
    )
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(root / "home"), "HF_HUB_DISABLE_XET": "0" if xet else "1"}
    return subprocess.Popen([sys.executable, "-c", script], env=os.environ | own, stderr=subprocess.DEVNULL)


def ours(monkeypatch, hub: Hub, folder: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    pace = TransferSettings(connections=1, backoff_s=0.001)
    pull(
        hub_module.connect().resolve(REPO, None), folder, PullReporter(lambda _: None, lambda *_: None, pace)
    )


def once(fault: Callable[[Answer, int, int], None]) -> Callable[[Answer, str, int, int], bool]:
    left = [1]

    def limited(answer: Answer, name: str, start: int, end: int) -> bool:
        if name != NAME or not left:
            return False
        left.pop()
        fault(answer, start, end)
        return True

    return limited


def test_hub_client_gives_up_after_one_500(tmp_path, monkeypatch):
    hub = Hub({NAME: DATA})
    with running(hub):
        hub.fault = once(lambda answer, _start, _end: answer.reply(500, b"", {}))
        assert client(hub, tmp_path).wait(timeout=60) != 0
        hub.fault = once(lambda answer, _start, _end: answer.reply(500, b"", {}))
        ours(monkeypatch, hub, tmp_path / "m")
    assert (tmp_path / "m" / NAME).read_bytes() == DATA


def test_hub_client_restarts_after_a_kill(tmp_path):
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


def test_hub_client_waits_for_dead_xet_storage(tmp_path, monkeypatch):
    """The hub refers to Xet storage, which is down. The file is available over HTTPS at the same time."""
    hub, asked = Hub({NAME: DATA}), threading.Event()

    class InXet(Answer):
        def head(self, data: bytes, start: int, end: int, **changes: str) -> None:
            link = f'<{self.hub.url}/api/models/{REPO}/xet-read-token/a>; rel="xet-auth"'
            super().head(data, start, end, X_Xet_Hash="a" * 64, Link=link, **changes)

        def _model(self, path: str) -> None:
            if "xet-read-token" not in path:
                super()._model(path)
                return
            asked.set()
            token = {"casUrl": "http://127.0.0.1:9", "exp": int(time.time()) + 3600, "accessToken": "t"}
            names = {
                "casUrl": "X-Xet-Cas-Url",
                "exp": "X-Xet-Token-Expiration",
                "accessToken": "X-Xet-Access-Token",
            }
            headers = {names[key]: str(value) for key, value in token.items()}
            self.reply(200, json.dumps(token).encode(), {"Content-Type": "application/json", **headers})

    hub.server.RequestHandlerClass = type("InXet", (InXet,), {"hub": hub})
    with running(hub):
        process = client(hub, tmp_path, xet=True)
        try:
            assert asked.wait(60)
            time.sleep(4)
            assert process.poll() is None
            assert hub.ranges == []
        finally:
            process.kill()
            process.wait()
        ours(monkeypatch, hub, tmp_path / "m")
    assert (tmp_path / "m" / NAME).read_bytes() == DATA
