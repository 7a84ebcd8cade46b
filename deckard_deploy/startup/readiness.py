"""Is it our launch that answers, and does it generate text?

vLLM does not listen before its engine is ready (entrypoints/openai/api_server.py:543 binds, uvicorn listens at the
end), so a refused connection means loading. `/health` is not asked: it answers 200 while a worker is dead, and
another server may hold the port.
"""

import functools
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from deckard_deploy.startup.background_call import Asking
from deckard_deploy.system.http import NO_ACCESS, Access, session

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 1.0
LIST_TIMEOUT_S = 5.0
CHUNK, MAX_BODY = 1 << 16, 1 << 20  # bytes; ours answers with a few kB, another server with whatever it likes
MAX_TOKENS = 64  # a model that thinks first spends some on its reasoning, which counts as text too
SHOWN = 60  # characters of the answer
QUESTION = "Reply with the single word: ready"


class Outcome(StrEnum):
    """What one probe found."""

    READY = "ready"
    LOADING = "loading"
    """Nothing listens yet, or a proxy in front says that nothing does."""
    NOT_ANSWERING = "not answering"
    """Something listens but gives no usable answer, so far."""
    OTHER_SERVER = "other server"
    """Another server, or another launch, holds the port."""
    KEY_REFUSED = "key refused"
    CANNOT_CHAT = "cannot chat"
    """Our launch refuses a plain question, as it does without a chat template."""
    ENGINE_DEAD = "engine dead"


FINAL = frozenset({Outcome.OTHER_SERVER, Outcome.KEY_REFUSED, Outcome.CANNOT_CHAT, Outcome.ENGINE_DEAD})


@dataclass(frozen=True)
class Readiness:
    """The outcome and, in one line, what it rests on. timed_out: a server with much to do may look like this."""

    outcome: Outcome
    detail: str = ""
    timed_out: bool = False

    @property
    def final(self) -> bool:
        """No later probe of this launch can end otherwise."""
        return self.outcome in FINAL


def probe(
    base_url: str,
    *,
    launch_id: str,
    served_name: str,
    access: Access = NO_ACCESS,
    timeout_s: float = 120.0,
) -> Readiness:
    """Ask `base_url` (ending in /v1) once: both names listed, then one chat completion with text in it.

    `timeout_s` bounds the completion: the first one compiles kernels, 25 to 30 s on a DGX Spark; the list has no more
    than LIST_TIMEOUT_S. Never raises for what a server does; goes through no proxy and follows no redirect.
    """
    list_s = min(LIST_TIMEOUT_S, timeout_s)
    asking = Asking(functools.partial(_ask, base_url, (launch_id, served_name), access, (list_s, timeout_s)))
    # The sockets' timeouts are for each piece that arrives, this is for all of them.
    late = Readiness(Outcome.NOT_ANSWERING, f"no end of an answer at {base_url}", timed_out=True)
    return asking.answer(list_s + timeout_s) or late


def _ask(base_url: str, names: tuple[str, str], access: Access, timeouts_s: tuple[float, float]) -> Readiness:
    import requests  # noqa: PLC0415  heavy

    list_s, completion_s = timeouts_s
    with session(access) as asking:
        try:
            listed = _listed(asking, base_url, set(names), list_s)
            # By the launch's own name: a twin on the port may get this connection, and serves the other name as well.
            own_name = names[0]  # guard: F30
            return listed or _completed(asking, base_url, own_name, completion_s)
        except requests.RequestException as error:
            return _unanswered(error, base_url)


def _unanswered(error: "requests.RequestException", base_url: str) -> Readiness:
    """Nothing listens, or hangs up unheard as docker's proxy does: loading. What says something wrong or late is not.

    requests raises ConnectionError for both, even for a body that stops halfway; what it was made from tells.
    """
    import requests  # noqa: PLC0415  heavy
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError  # noqa: PLC0415  heavy

    causes = list(_causes(error))
    detail = f"{type(error).__name__} at {base_url}"
    hung_up = (ConnectionError, ssl.SSLEOFError, ConnectTimeoutError, NewConnectionError)
    if any(isinstance(cause, hung_up) for cause in causes):
        return Readiness(Outcome.LOADING, detail)
    timed_out = any(isinstance(cause, requests.Timeout | ReadTimeoutError) for cause in causes)
    return Readiness(Outcome.NOT_ANSWERING, detail, timed_out)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _listed(
    session: "requests.Session", base_url: str, names: set[str], timeout_s: float
) -> Readiness | None:
    """None when every name is on /models."""
    url = f"{base_url}/models"
    with session.get(
        url, timeout=(CONNECT_TIMEOUT_S, timeout_s), allow_redirects=False, stream=True
    ) as response:
        if response.status_code != HTTPStatus.OK:
            return _refused(response.status_code, url, otherwise=Outcome.OTHER_SERVER)
        body = _json(response)
    models = body.get("data") if isinstance(body, dict) else None
    if not isinstance(models, list):
        return Readiness(Outcome.OTHER_SERVER, f"{url} lists no models")
    found = [model.get("id") for model in models if isinstance(model, dict)]
    missing = {name for name in names if name not in found}
    if missing:  # guard: F28
        return Readiness(Outcome.OTHER_SERVER, f"{url} does not list {', '.join(sorted(missing))}")
    return None


def _completed(session: "requests.Session", base_url: str, model: str, timeout_s: float) -> Readiness:
    url = f"{base_url}/chat/completions"
    question = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": MAX_TOKENS,
        # No temperature: clients sample, and sampling compiles code of its own on first use (vLLM 0.19.1
        # v1/sample/ops/topk_topp_sampler.py:237), which kills an engine without a working compiler.
    }
    with session.post(
        url, json=question, timeout=(CONNECT_TIMEOUT_S, timeout_s), allow_redirects=False, stream=True
    ) as response:
        if response.status_code != HTTPStatus.OK:
            unknown = response.status_code == HTTPStatus.NOT_FOUND  # the name, or the route
            return _refused(
                response.status_code, url, otherwise=Outcome.OTHER_SERVER if unknown else Outcome.CANNOT_CHAT
            )
        text = _text(_json(response))
    if not text:
        return Readiness(Outcome.NOT_ANSWERING, f"{url} answered without text")
    return Readiness(Outcome.READY, " ".join(text.split())[:SHOWN])


def _refused(status: int, url: str, *, otherwise: Outcome) -> Readiness:
    detail = f"{url} answered HTTP {status}"
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Readiness(Outcome.KEY_REFUSED, detail)
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return Readiness(Outcome.ENGINE_DEAD, detail)
        case HTTPStatus.TOO_MANY_REQUESTS:  # the gateway's, when it has as many connections as it takes
            return Readiness(Outcome.NOT_ANSWERING, detail, timed_out=True)
        case HTTPStatus.BAD_GATEWAY | HTTPStatus.GATEWAY_TIMEOUT:
            return Readiness(Outcome.LOADING, detail)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Readiness(Outcome.NOT_ANSWERING, detail)
        case _:
            return Readiness(otherwise, detail)


def _json(response: "requests.Response") -> Any:  # noqa: ANN401  whatever the server sent
    body = bytearray()
    for piece in response.iter_content(CHUNK):  # of a chunked answer as small as the server likes
        body += piece
        if len(body) > MAX_BODY:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _text(body: Any) -> str:  # noqa: ANN401  whatever the server sent
    """Content or reasoning of the first choice (`reasoning`: entrypoints/openai/chat_completion/protocol.py)."""
    choices = body.get("choices") if isinstance(body, dict) else None
    message = (
        choices[0].get("message")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict)
        else None
    )
    if not isinstance(message, Mapping):
        return ""
    said = (message.get("content"), message.get("reasoning"), message.get("reasoning_content"))
    return next((text for text in said if isinstance(text, str) and text.strip()), "")
