"""`chat`: one message to the running endpoint, whole or as a stream."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from deckard_deploy.errors import BadInputError, NetworkError
from deckard_deploy.operations.bench_target import running_endpoint
from deckard_deploy.operations.chat import (
    ChatEndpoint,
    Delta,
    chat_endpoint,
    request_body,
    stream,
    user_message,
    whole_response,
)
from deckard_deploy.operations.deployments import DeploymentRef
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.system.http import ANONYMOUS
from tests.support.fake_deployment import FakeDeployment
from tests.support.misbehaving_server import Misbehaving, Reply

EVENTS = b"""data: {"choices": [{"delta": {"role": "assistant"}}]}

data: {"choices": [{"delta": {"reasoning": "hm"}}]}

data: {"choices": [{"delta": {"content": "Good "}}]}

data: {"choices": [{"delta": {"content": "day"}, "finish_reason": "length"}]}

data: {"choices": []}

data: [DONE]

"""


@pytest.fixture
def replies() -> list[Reply]:
    """Return a list for the reply of the server."""
    return []


@pytest.fixture
def endpoint(replies: list[Reply]) -> Iterator[ChatEndpoint]:
    with closing(Misbehaving(lambda *_: replies[0], Random(0))) as server:
        server.listen()
        yield ChatEndpoint(server.url, "t", ANONYMOUS)


def body(endpoint: ChatEndpoint) -> dict[str, object]:
    return request_body(endpoint, [user_message("hello")], thinking=False, max_tokens=5)


@pytest.mark.parametrize(("convert", "answer"), [("embed", "vectors"), ("classify", "scores")])
def test_endpoint_without_text_says_what_it_is(fake: FakeDeployment, convert: str, answer: str) -> None:
    plan = fake.plan()
    pooling = ("--runner", "pooling", "--convert", convert)
    fake.proven(plan.model_copy(update={"arguments": (*plan.arguments, *pooling)}))
    with pytest.raises(BadInputError, match=f"box answers with {answer}, and chat needs texts"):
        chat_endpoint(Selection(fake.state.root), SILENT)
    with pytest.raises(BadInputError, match=f"box answers with {answer}, and bench needs texts"):
        running_endpoint(DeploymentRef(fake.state, "box"), SILENT)


def test_endpoint_is_that_of_the_running_release(fake: FakeDeployment) -> None:
    plan = fake.proven(fake.plan()).plan
    endpoint = chat_endpoint(Selection(fake.state.root), SILENT)
    assert endpoint == ChatEndpoint(plan.base_url, "t", ANONYMOUS)
    assert '"content": "ready"' in whole_response(endpoint, body(endpoint))


def test_stream_yields_reasoning_and_content(endpoint: ChatEndpoint, replies: list[Reply]) -> None:
    replies.append(Reply(body=EVENTS))
    deltas = [delta for delta in stream(endpoint, body(endpoint)) if any(delta)]
    assert deltas == [Delta("hm", ""), Delta("", "Good "), Delta("", "day", "length")]


def test_error_within_stream_is_raised(endpoint: ChatEndpoint, replies: list[Reply]) -> None:
    replies.append(Reply(body=EVENTS.replace(b'data: {"choices": []}', b'data: {"error": "dead"}')))
    with pytest.raises(NetworkError, match=r'the engine broke off: \{"error": "dead"\}'):
        list(stream(endpoint, body(endpoint)))


@pytest.mark.parametrize(("status", "error"), [(400, BadInputError), (500, NetworkError)])
def test_refusal_is_raised(
    endpoint: ChatEndpoint, replies: list[Reply], status: int, error: type[Exception]
) -> None:
    replies.append(Reply(body=b"too long", status=status))
    with pytest.raises(error, match="too long"):
        whole_response(endpoint, body(endpoint))


@pytest.mark.parametrize("status", [502, 503])
def test_loading_engine_is_waited_for(endpoint: ChatEndpoint, replies: list[Reply], status: int) -> None:
    replies.append(Reply(body=b'{"error": {"message": "the model is loading"}}', status=status))
    with pytest.raises(NetworkError, match="does not answer yet: the model is loading") as raised:
        whole_response(endpoint, body(endpoint))
    assert raised.value.hint == "deckard-deploy wait"


def test_image_is_sent_within_the_message(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"PNG")
    message = user_message("what is it?", (picture,))
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,UE5H"}},
        {"type": "text", "text": "what is it?"},
    ]


@pytest.mark.parametrize(("name", "problem"), [("a.txt", "not named as an image"), ("b.png", "No such file")])
def test_wrong_image_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(BadInputError, match=problem):
        user_message("x", (tmp_path / name,))
