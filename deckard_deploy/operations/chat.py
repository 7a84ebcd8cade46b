"""`chat`: one message to the running endpoint."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import requests

from deckard_deploy.errors import BadInputError, NetworkError
from deckard_deploy.operations.deployments import running_plan, select_deployment
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.system.http import EndpointCredentials, session


class ChatEndpoint(NamedTuple):
    """The running endpoint: its base URL, its served model name, and the credentials to reach it."""

    base_url: str
    model: str
    access: EndpointCredentials


class Delta(NamedTuple):
    """A piece of the answer: the model's thoughts, and the text."""

    reasoning: str
    content: str


def chat_endpoint(selection: Selection, report: Reporter) -> ChatEndpoint:
    """Return the running endpoint. Raises BadInputError when nothing runs."""
    deployment = select_deployment(selection)
    plan = running_plan(deployment, report)
    return ChatEndpoint(plan.base_url, plan.served_name, credentials(plan, deployment.directory))


def request_body(endpoint: ChatEndpoint, message: str, *, thinking: bool, max_tokens: int) -> dict[str, Any]:
    """Return the body of a chat completion request with one message."""
    return {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": message}],
        "max_tokens": max_tokens,
        "chat_template_kwargs": {"enable_thinking": thinking},
    }


def whole_response(endpoint: ChatEndpoint, body: dict[str, Any]) -> str:
    """Return the response as JSON text. Raises BadInputError (refused), NetworkError."""
    return "\n".join(_post(endpoint, {**body, "stream": False}))


def stream(endpoint: ChatEndpoint, body: dict[str, Any]) -> Iterator[Delta]:
    """Yield the answer piece by piece as it arrives. Raises BadInputError (refused), NetworkError."""
    for line in _post(endpoint, {**body, "stream": True}):
        delta = _delta(line)
        yield Delta(delta.get("reasoning") or "", delta.get("content") or "")


def _post(endpoint: ChatEndpoint, body: dict[str, Any]) -> Iterator[str]:
    url = f"{endpoint.base_url}/chat/completions"
    with session(endpoint.access) as http:
        try:
            with http.post(url, json=body, stream=True, timeout=(5, 600)) as response:
                if response.status_code == 400:
                    raise BadInputError(f"the engine refused the message: {response.text[:300]}")
                if response.status_code != 200:
                    raise NetworkError(f"{url} answered {response.status_code}: {response.text[:300]}")
                for line in response.iter_lines():
                    if line:
                        yield line.decode("utf-8", "replace")
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {type(error).__name__}", hint="deckard-deploy status") from error


def _delta(line: str) -> dict[str, Any]:
    """Return the new text of one server-sent event of a streamed chat completion."""
    data = line.removeprefix("data: ")
    if data in ("[DONE]", line):
        return {}
    event = json.loads(data)
    if "choices" not in event:  # an error within a stream arrives as an event
        raise NetworkError(f"the engine broke off: {data[:300]}", hint="deckard-deploy logs")
    if not event["choices"]:
        return {}
    return dict(event["choices"][0]["delta"])
