"""The keys of clients change while answers stream through the real nginx: nothing is cut, nothing is started again."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deckard_deploy.operations.keys import add_key, limit_key, revoke_key, rotate_key, tell_gateways
from deckard_deploy.planning.plan import Gateway
from deckard_deploy.rendering.gateway import CONFIG, render_gateway
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys, KeyTerms
from deckard_deploy.running.process.supervision import ServerState
from tests.support.fake_deployment import FakeDeployment
from tests.support.recording_reporter import RecordingReporter
from tests.support.waiting import eventually

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
QUESTION = {"model": "t", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 9}


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDeployment]:
    deployment = FakeDeployment(tmp_path)
    yield deployment
    deployment.end()


@pytest.fixture
def report() -> RecordingReporter:
    return RecordingReporter()


def start(fake: FakeDeployment, hold: Path) -> str:
    """Start a deployment whose streams wait for the file `hold`, behind nginx. Return the URL of chats."""
    gateway = Gateway(
        image=None, program=NGINX, user=None, folder=str(fake.deployment.folder / "gateway"), exposed=False,
        tls=False, certificate=None, certificate_key=None,
    )  # fmt: skip
    arguments = ("/models/tiny", "--uds", "vllm.sock", "--served-model-name", "t")
    plan = fake.plan(FAKE_HOLD=str(hold)).model_copy(update={"gateway": gateway, "arguments": arguments})
    files.write_gateway_files(plan, Keys(fake.state.root), environment=dict(os.environ), say=print)
    release, launch = fake.stored(plan)
    (release.folder / CONFIG).write_text(render_gateway(plan))
    release.record(launch)
    fake.runtime().start(release)
    fake.releases.switch(release)
    ready = f"{plan.base_url}/health/ready"
    eventually(lambda: fake.answers(plan.port) and requests.get(ready, timeout=10).ok)
    return f"{plan.base_url}/chat/completions"


def ask(url: str, key: str, *, stream: bool = False) -> requests.Response:
    return requests.post(
        url, json={**QUESTION, "stream": stream}, headers={"x-api-key": key}, stream=stream, timeout=60
    )


def test_streams_go_on_while_keys_change(
    fake: FakeDeployment, report: RecordingReporter, tmp_path: Path
) -> None:
    root, hold = fake.state.root, tmp_path / "go-on"
    alice, bob = (add_key(root, name, report)[0] for name in ("alice", "bob"))
    url = start(fake, hold)
    before = ServerState.model_validate_json(fake.deployment.process_state.read_text())
    streams = [ask(url, key, stream=True).iter_lines() for key in (alice, bob)]
    begun = [next(lines) for lines in streams]

    carol, _ = add_key(root, "carol", report)
    tell_gateways(root, report)
    assert ask(url, carol).status_code == 200
    new = rotate_key(root, "alice")
    tell_gateways(root, report)
    assert (ask(url, alice).status_code, ask(url, new).status_code) == (401, 200)
    revoke_key(root, "bob", report)
    refused = ask(url, bob)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    limit_key(root, "carol", KeyTerms(requests=60, ends_at=1), report)
    assert ask(url, carol).status_code == 401

    hold.touch()
    for first, lines in zip(begun, streams, strict=True):
        rest = [line for line in lines if line]
        assert rest[-1] == b"data: [DONE]"
        events = [json.loads(line.removeprefix(b"data: ")) for line in (first, *rest[:-1])]
        assert (
            json.loads("".join(event["choices"][0]["delta"]["content"] for event in events))
            == QUESTION["messages"]
        )
    assert ServerState.model_validate_json(fake.deployment.process_state.read_text()) == before
