"""Readiness of a launch: our own launch answers, with a text, a vector or a score.

vLLM does not listen before its engine is ready (entrypoints/openai/api_server.py:543 binds, uvicorn listens
at the end), so a refused connection means loading. `/health` is not asked: it answers 200 while a worker is
dead, and another server may hold the port.
"""

import functools
import json
import math
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NamedTuple

import requests
import urllib3.exceptions as urllib3

from deckard_deploy.catalog.specs import Task
from deckard_deploy.startup.background_call import BackgroundCall
from deckard_deploy.system.http import ANONYMOUS, EndpointCredentials, session

CONNECT_TIMEOUT_S = 1.0
LIST_TIMEOUT_S = 5.0
CHUNK, MAX_BODY = 1 << 16, 1 << 20  # bytes; vLLM answers with a few kB, another server may send any amount
MAX_TOKENS = 64  # a reasoning model spends some on its reasoning, which counts as text too
MAX_SHOWN = 60  # characters of the answer in the detail
# vLLM 0.19.1 entrypoints/openai/engine/serving.py:866
RANK_HEADER = "X-data-parallel-rank"
QUESTION = "Reply with the single word: ready"


class Outcome(StrEnum):
    """The result of one probe."""

    READY = "ready"
    LOADING = "loading"
    """Nothing listens yet, or a proxy in front reports that nothing does."""
    NOT_ANSWERING = "not answering"
    """Something listens but gives no usable answer, so far."""
    OTHER_SERVER = "other server"
    """Another server, or another launch, holds the port."""
    KEY_REFUSED = "key refused"
    CANNOT_CHAT = "cannot chat"
    """Our launch refuses a plain question, as it does without a chat template."""
    CANNOT_EMBED = "cannot embed"
    CANNOT_SCORE = "cannot score"
    ENGINE_DEAD = "engine dead"


REFUSES = frozenset({Outcome.CANNOT_CHAT, Outcome.CANNOT_EMBED, Outcome.CANNOT_SCORE})
FINAL = frozenset({Outcome.OTHER_SERVER, Outcome.KEY_REFUSED, Outcome.ENGINE_DEAD}) | REFUSES


@dataclass(frozen=True)
class Readiness:
    """The outcome of one probe.

    detail: the evidence, in one line.
    timed_out: no answer in time, which a busy server causes as well.
    """

    outcome: Outcome
    detail: str = ""
    timed_out: bool = False

    @property
    def final(self) -> bool:
        """True if no later probe of this launch can have another outcome."""
        return self.outcome in FINAL


def probe(  # noqa: PLR0913  each is a part of one question
    base_url: str,
    *,
    launch_id: str,
    served_name: str,
    task: Task = "generate",
    access: EndpointCredentials = ANONYMOUS,
    timeout_s: float = 120.0,
) -> Readiness:
    """Ask `base_url` (ending in /v1) once: both names are listed, then the question of the task has an answer.

    timeout_s: limit of the answer. The first one compiles kernels, 25 to 30 s on a DGX Spark. The list of
    models has at most LIST_TIMEOUT_S.

    Never raises because of a server's behaviour. Uses no proxy and follows no redirect.
    """
    list_s = min(LIST_TIMEOUT_S, timeout_s)
    call = BackgroundCall(
        functools.partial(
            _probe, base_url, (launch_id, served_name), QUESTIONS[task], access, (list_s, timeout_s)
        )
    )
    return _answer_of(call, base_url, list_s + timeout_s)


def _answer_of(call: BackgroundCall[Readiness], base_url: str, timeout_s: float) -> Readiness:
    """Return the answer of a call within a time for the whole: the sockets' own is for each piece that arrives."""
    late = Readiness(Outcome.NOT_ANSWERING, f"no end of an answer at {base_url}", timed_out=True)
    return call.answer(timeout_s) or late


def probe_answer(
    base_url: str,
    *,
    served_name: str,
    task: Task = "generate",
    access: EndpointCredentials = ANONYMOUS,
    timeout_s: float = 120.0,
) -> Readiness:
    """Ask the question of whichever engine is behind the URL. Never raises as `probe`."""
    call = BackgroundCall(
        functools.partial(_probe_answer, base_url, served_name, QUESTIONS[task], access, timeout_s)
    )
    return _answer_of(call, base_url, timeout_s)


def _probe_answer(
    base_url: str, served_name: str, question: "_Question", access: EndpointCredentials, timeout_s: float
) -> Readiness:
    with session(access) as client:
        try:
            return _check_answer(client, base_url, question, served_name, timeout_s)
        except requests.RequestException as error:
            return _from_error(error, base_url)


def probe_rank(  # noqa: PLR0913  same
    base_url: str,
    rank: int,
    *,
    launch_id: str,
    task: Task = "generate",
    access: EndpointCredentials = ANONYMOUS,
    timeout_s: float = 120.0,
) -> Readiness:
    """Ask one data-parallel rank the question; the gateway passes its number on. Never raises as `probe`."""
    call = BackgroundCall(
        functools.partial(_probe_rank, base_url, rank, launch_id, QUESTIONS[task], access, timeout_s)
    )
    return _answer_of(call, base_url, timeout_s)


def _probe_rank(  # noqa: PLR0913, PLR0917  each is a part of one request
    base_url: str,
    rank: int,
    launch_id: str,
    question: "_Question",
    access: EndpointCredentials,
    timeout_s: float,
) -> Readiness:
    with session(access) as client:
        client.headers[RANK_HEADER] = str(rank)
        try:
            return _check_answer(client, base_url, question, launch_id, timeout_s)
        except requests.RequestException as error:
            return _from_error(error, base_url)


def _probe(
    base_url: str,
    names: tuple[str, str],
    question: "_Question",
    access: EndpointCredentials,
    timeouts_s: tuple[float, float],
) -> Readiness:
    list_s, answer_s = timeouts_s
    with session(access) as client:
        try:
            problem = _check_models(client, base_url, set(names), list_s)
            if problem:
                return problem
            # By the launch's own name: another server on the port may get this connection, and it may serve
            # the model under the other name as well.
            own_name = names[0]  # guard: F30
            return _check_answer(client, base_url, question, own_name, answer_s)
        except requests.RequestException as error:
            return _from_error(error, base_url)


def _from_error(error: requests.RequestException, base_url: str) -> Readiness:
    """Return LOADING if nothing listens or the connection is closed unanswered, as by docker's proxy.

    A wrong or late answer is NOT_ANSWERING. requests raises ConnectionError for both, even for a body that
    stops halfway, so the causes of the error decide.
    """
    causes = list(_causes(error))
    detail = f"{type(error).__name__} at {base_url}"
    hung_up = (ConnectionError, ssl.SSLEOFError, urllib3.ConnectTimeoutError, urllib3.NewConnectionError)
    if any(isinstance(cause, hung_up) for cause in causes):
        return Readiness(Outcome.LOADING, detail)
    timed_out = any(isinstance(cause, requests.Timeout | urllib3.ReadTimeoutError) for cause in causes)
    return Readiness(Outcome.NOT_ANSWERING, detail, timed_out)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _check_models(
    client: requests.Session, base_url: str, names: set[str], timeout_s: float
) -> Readiness | None:
    """Return None if /models lists every name, else the outcome."""
    url = f"{base_url}/models"
    with client.get(
        url, timeout=(CONNECT_TIMEOUT_S, timeout_s), allow_redirects=False, stream=True
    ) as response:
        if response.status_code != HTTPStatus.OK:
            return _from_status(response.status_code, url, otherwise=Outcome.OTHER_SERVER)
        body = _json(response)
    models = body.get("data") if isinstance(body, dict) else None
    if not isinstance(models, list):
        return Readiness(Outcome.OTHER_SERVER, f"{url} lists no models")
    listed = [model.get("id") for model in models if isinstance(model, dict)]
    missing = [name for name in sorted(names) if name not in listed]
    if missing:  # guard: F28
        return Readiness(Outcome.OTHER_SERVER, f"{url} does not list {', '.join(missing)}")
    return None


def _check_answer(
    client: requests.Session, base_url: str, question: "_Question", model: str, timeout_s: float
) -> Readiness:
    url = f"{base_url}{question.path}"
    with client.post(
        url,
        json={"model": model, **question.body},
        timeout=(CONNECT_TIMEOUT_S, timeout_s),
        allow_redirects=False,
        stream=True,
    ) as response:
        if response.status_code == HTTPStatus.NOT_FOUND:  # the name, or the route
            return _from_status(response.status_code, url, otherwise=Outcome.OTHER_SERVER)
        if response.status_code != HTTPStatus.OK:
            return _from_status(response.status_code, url, otherwise=question.refused)
        found = question.answer(_json(response))
    if not found:
        return Readiness(Outcome.NOT_ANSWERING, f"{url} answered without {question.asks_for}")
    return Readiness(Outcome.READY, " ".join(found.split())[:MAX_SHOWN])


def _from_status(status: int, url: str, *, otherwise: Outcome) -> Readiness:
    detail = f"{url} answered HTTP {status}"
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Readiness(Outcome.KEY_REFUSED, detail)
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return Readiness(Outcome.ENGINE_DEAD, detail)
        case HTTPStatus.TOO_MANY_REQUESTS:  # from the gateway, when it has its maximum of connections
            return Readiness(Outcome.NOT_ANSWERING, detail, timed_out=True)
        case HTTPStatus.BAD_GATEWAY | HTTPStatus.GATEWAY_TIMEOUT:
            return Readiness(Outcome.LOADING, detail)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Readiness(Outcome.NOT_ANSWERING, detail)
        case _:
            return Readiness(otherwise, detail)


def _json(response: requests.Response) -> Any:  # noqa: ANN401  any JSON that the server sent
    body = bytearray()
    for piece in response.iter_content(CHUNK):  # a chunked answer may come in pieces of any size
        body += piece
        if len(body) > MAX_BODY:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _text(body: Any) -> str:  # noqa: ANN401  any JSON that the server sent
    """Return content or reasoning of the first choice; an empty string if it has neither.

    (`reasoning`: entrypoints/openai/chat_completion/protocol.py.)
    """
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    message = choices[0].get("message")
    if not isinstance(message, Mapping):
        return ""
    for name in ("content", "reasoning", "reasoning_content"):
        text = message.get(name)
        if isinstance(text, str) and text.strip():
            return text
    return ""


def _vector(body: Any) -> str:  # noqa: ANN401  any JSON that the server sent
    """Return a sentence about the first embedding; "" unless it is a vector of finite numbers, not all of them zero."""
    data = body.get("data") if isinstance(body, dict) else None
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    if not isinstance(vector, list) or not all(map(_is_finite, vector)) or not any(vector):
        return ""
    return f"a vector of {len(vector)} numbers"


def _score(body: Any) -> str:  # noqa: ANN401  any JSON that the server sent
    """Return a sentence about the first score; "" unless it is a finite number."""
    results = body.get("results") if isinstance(body, dict) else None
    first = results[0] if isinstance(results, list) and results else None
    score = first.get("relevance_score") if isinstance(first, dict) else None
    if not _is_finite(score):
        return ""
    return f"a score of {score:.3g}"


def _is_finite(value: Any) -> bool:  # noqa: ANN401  any JSON that the server sent
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _Question(NamedTuple):
    """The question that proves a task. answer: reads what it asks for, "" if that is missing."""

    path: str
    body: Mapping[str, Any]
    asks_for: str
    answer: Callable[[Any], str]
    refused: Outcome


QUESTIONS: Mapping[Task, _Question] = {
    "generate": _Question(
        path="/chat/completions",
        # No temperature: clients sample, and sampling compiles code of its own on first use (vLLM 0.19.1
        # v1/sample/ops/topk_topp_sampler.py:237), which kills an engine without a working compiler.
        body={"messages": [{"role": "user", "content": QUESTION}], "max_tokens": MAX_TOKENS},
        asks_for="text",
        answer=_text,
        refused=Outcome.CANNOT_CHAT,
    ),
    "embed": _Question("/embeddings", {"input": QUESTION}, "a vector", _vector, Outcome.CANNOT_EMBED),
    "score": _Question(
        "/rerank", {"query": QUESTION, "documents": ["ready"]}, "a score", _score, Outcome.CANNOT_SCORE
    ),
}
