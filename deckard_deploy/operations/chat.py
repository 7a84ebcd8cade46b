"""`chat`: messages to the running endpoint."""

import base64
import json
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import requests

from deckard_deploy.errors import BadInputError, NetworkError
from deckard_deploy.operations.deployments import require_text, running_plan, select_deployment
from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.system.http import EndpointCredentials, session

MAX_IMAGE = 20 << 20  # bytes; the gateway takes 32 MiB for the whole request, and base64 adds a third
Message: TypeAlias = dict[str, Any]


class ChatEndpoint(NamedTuple):
    """The running endpoint: its base URL, its served model name, and the credentials to reach it."""

    base_url: str
    model: str
    access: EndpointCredentials


class Delta(NamedTuple):
    """A piece of the answer: the model's thoughts, the text, and why the answer ends, in its last piece."""

    reasoning: str
    content: str
    finish: str = ""


def chat_endpoint(selection: Selection, report: Reporter) -> ChatEndpoint:
    """Return the running endpoint. Raises BadInputError when nothing runs, or what runs answers with no text."""
    deployment = select_deployment(selection)
    plan = running_plan(deployment, report)
    require_text(plan, "chat")
    return ChatEndpoint(plan.base_url, plan.served_name, credentials(plan, deployment.directory))


def user_message(text: str, images: tuple[Path, ...] = ()) -> Message:
    """Return a message of the user; images are sent within it. Raises BadInputError."""
    if not images:
        return {"role": "user", "content": text}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": _data_url(path)}} for path in images
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def request_body(
    endpoint: ChatEndpoint, messages: list[Message], *, thinking: bool, max_tokens: int
) -> dict[str, Any]:
    """Return the body of a chat completion request."""
    return {
        "model": endpoint.model,
        "messages": messages,
        "max_tokens": max_tokens,
        "chat_template_kwargs": {"enable_thinking": thinking},
    }


def whole_response(endpoint: ChatEndpoint, body: dict[str, Any]) -> str:
    """Return the response as JSON text. Raises BadInputError (refused), NetworkError."""
    return "\n".join(_post(endpoint, {**body, "stream": False}))


def stream(endpoint: ChatEndpoint, body: dict[str, Any]) -> Iterator[Delta]:
    """Yield the answer piece by piece as it arrives. Raises BadInputError (refused), NetworkError."""
    for line in _post(endpoint, {**body, "stream": True}):
        choice = _choice(line)
        delta = choice.get("delta") or {}
        yield Delta(
            delta.get("reasoning") or "", delta.get("content") or "", choice.get("finish_reason") or ""
        )


def _post(endpoint: ChatEndpoint, body: dict[str, Any]) -> Iterator[str]:
    url = f"{endpoint.base_url}/chat/completions"
    with session(endpoint.access) as http:
        try:
            with http.post(url, json=body, stream=True, timeout=(5, 600)) as response:
                if response.status_code != 200:
                    raise refusal(url, response)
                for line in response.iter_lines():
                    if line:
                        yield line.decode("utf-8", "replace")
        except requests.RequestException as error:
            raise NetworkError(f"{url}: {type(error).__name__}", hint="deckard-deploy wait") from error


def refusal(url: str, response: requests.Response) -> BadInputError | NetworkError:
    """Return the error of an answer that is no success, with the API's own message."""
    message = _api_message(response.text)
    if response.status_code == 400:
        return BadInputError(f"the engine refused the message: {message}")
    if response.status_code in (502, 503, 504):
        return NetworkError(f"the engine does not answer yet: {message}", hint="deckard-deploy wait")
    return NetworkError(f"{url} answered {response.status_code}: {message}", hint="deckard-deploy status")


def _api_message(text: str) -> str:
    """Return the message of an error object, or the start of any other text."""
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = text
    return " ".join(str(message).split())[:300]


def _choice(line: str) -> dict[str, Any]:
    """Return the choice of one server-sent event of a streamed chat completion."""
    data = line.removeprefix("data: ")
    if data in ("[DONE]", line):
        return {}
    event = json.loads(data)
    if "choices" not in event:  # an error within a stream arrives as an event
        raise NetworkError(f"the engine broke off: {data[:300]}", hint="deckard-deploy logs")
    if not event["choices"]:
        return {}
    return dict(event["choices"][0])


def _data_url(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or ""
    if not kind.startswith("image/"):
        raise BadInputError(
            f"{path} is not named as an image", hint="a name that ends in .png, .jpg or .webp"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_IMAGE:
        raise BadInputError(f"{path} has {len(data)} bytes, and an image may have {MAX_IMAGE}")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
