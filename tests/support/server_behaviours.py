"""Forty behaviours of a server while `up` waits for it, and the verdict that a start must have of each.

`/health` answers 200 in all of them but one, as vLLM's does while its engine hangs or its workers are dead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from deckard_deploy.startup.observation import State
from tests.support.misbehaving_server import Answering, Manner, Reply

LAUNCH, SERVED = "deckard-launch-7c1e", "deckard-31b"
LIST, CHAT, HEALTH = "GET /v1/models", "POST /v1/chat/completions", "GET /health"
Verdict = Literal["ready", "failed", "stalled"]


@dataclass(frozen=True)
class FakeObservation:
    """An observation of the runtime."""

    state: State = "running"
    exit_code: int | None = None
    oom_killed: bool = False
    restart_count: int = 0
    instance_id: str | None = "c0ffee"
    gateway: State | None = None
    gateway_exit_code: int | None = None


NO_TURNS: Mapping[float, FakeObservation] = MappingProxyType({})


class Behaviour(NamedTuple):
    """One behaviour. turns: second -> the observation from then on; the last one must be reported."""

    name: str
    verdict: Verdict
    answering: Callable[[Random], Answering]
    listens: bool = True
    turns: Mapping[float, FakeObservation] = NO_TURNS


def listing(*names: str) -> Reply:
    return Reply({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def said(**message: Any) -> Reply:
    return Reply({"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]})


OURS, TEXT = listing(SERVED, LAUNCH), said(content="ready")


def always(models: Reply = OURS, chat: Reply = TEXT, health: int = 200) -> Callable[[Random], Answering]:
    """Return a server that always gives the same answers."""
    replies = {LIST: models, CHAT: chat, HEALTH: Reply(status=health)}
    return lambda _: lambda request, _count: replies.get(request)


def at_first(fault: Reply, most: int, request: str = LIST) -> Callable[[Random], Answering]:
    """Return a server that answers `fault` one to `most` times, then correctly."""

    def answering(random: Random) -> Answering:
        times, well = random.randint(1, most), always()(random)
        return lambda asked, count: fault if asked == request and count < times else well(asked, count)

    return answering


def mannered(reply: Reply, manner: Manner) -> Reply:
    return replace(reply, manner=manner)


def many_models(random: Random) -> Answering:
    others = [f"adapter-{number}" for number in range(random.randint(1, 500))]
    return always(listing(*others, SERVED, LAUNCH))(random)


def odd_text(random: Random) -> Answering:
    texts = ("\x1b]0;owned\x07", "\ud800", "\u202eydaer", "r\x00", "\ufffd", "0")
    return always(chat=said(content=random.choice(texts)))(random)


def no_text(random: Random) -> Answering:
    choices: tuple[Any, ...] = ("", " \n\t", None, 7, [], {"text": "ready"}, float("nan"))
    return always(chat=said(content=random.choice(choices)))(random)


def no_choice(random: Random) -> Answering:
    bodies: tuple[Any, ...] = (
        {"choices": []},
        {"choices": [None]},
        {"choices": {}},
        {"error": {"message": "no"}},
        [],
        "ready",
        None,
    )
    return always(chat=Reply(random.choice(bodies)))(random)


def no_json(random: Random) -> Answering:
    bodies = (b"", b"{", b"[" * 100_000, b"\xff\xfe\x00", b'{"choices": [' + b"1" * 5000 + b"]}")
    return always(chat=Reply(random.choice(bodies)))(random)


def no_list(random: Random) -> Answering:
    bodies = (b"", b"{", b"\xff\xfe", b'{"data": {}}', b'{"object": "list"}', b'["deckard-31b"]', b"null")
    return always(Reply(random.choice(bodies)))(random)


def not_http(random: Random) -> Answering:
    bodies = (
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"-ERR unknown command\r\n",
        b"\x00" * 64,
    )
    return always(Reply(random.choice(bodies), manner="raw"))(random)


def elsewhere(_: Random) -> Answering:
    """Redirect to an address that answers correctly."""
    well = {"GET /well/models": OURS, "POST /well/chat/completions": TEXT, HEALTH: Reply()}
    away = {LIST: Reply(status=307, head=("Location: /well/models",))}
    return lambda request, _count: (well | away).get(request)


HTML = Reply(b"<html><body>It works!</body></html>", head=("Content-Type: text/html",))
CRASHED = FakeObservation(state="exited", exit_code=1)
HUNG_LIST, HUNG_CHAT = always(mannered(OURS, "hang")), always(chat=mannered(TEXT, "hang"))

READY = (
    Behaviour("answers", "ready", always()),
    Behaviour("only reasons", "ready", always(chat=said(content=None, reasoning="The user wants"))),
    Behaviour(
        "only reasons, in the older field", "ready", always(chat=said(content="", reasoning_content="The"))
    ),
    Behaviour("sends in chunks", "ready", always(mannered(OURS, "chunked"), mannered(TEXT, "chunked"))),
    Behaviour(
        "says no length and hangs up",
        "ready",
        always(replace(OURS, length=False), replace(TEXT, length=False)),
    ),
    Behaviour("lists many more models", "ready", many_models),
    Behaviour("writes odd characters", "ready", odd_text),
    Behaviour("says 503 to /health, and works", "ready", always(health=503)),
    Behaviour("accepts and hangs up while it loads", "ready", at_first(Reply(manner="close"), 40)),
    Behaviour("resets connections while it loads", "ready", at_first(Reply(manner="reset"), 40)),
    Behaviour("is behind a proxy that says 502 while it loads", "ready", at_first(Reply(status=502), 40)),
    Behaviour("is behind a proxy that says 504 while it loads", "ready", at_first(Reply(status=504), 40)),
    Behaviour("says 500 some times", "ready", at_first(Reply(status=500), 9)),
    Behaviour("says 429 some times", "ready", at_first(Reply(status=429), 9)),
    Behaviour("answers without text some times", "ready", at_first(said(content=""), 9, CHAT)),
    Behaviour("is silent at the first question", "ready", at_first(mannered(TEXT, "hang"), 2, CHAT)),
)
NEVER = (
    Behaviour("has /health and no models", "failed", always(Reply(status=404))),
    Behaviour("serves another model", "failed", always(listing("llama"))),
    Behaviour(
        "serves our model, from another launch", "failed", always(listing(SERVED, "deckard-launch-0001"))
    ),
    Behaviour("answers 200 with a page", "failed", always(HTML, HTML)),
    Behaviour("lists nothing that is a list", "failed", no_list),
    Behaviour("lists without end", "failed", always(Reply(b"[" + b"1," * 4096, manner="endless"))),
    Behaviour("redirects to a server that is well", "failed", elsewhere),
    Behaviour("speaks no HTTP", "failed", not_http),
    Behaviour("wants another key", "failed", always(Reply(status=401))),
    Behaviour("sends a head without end", "failed", always(mannered(OURS, "drip head"))),
    Behaviour("sends a list that drips", "failed", always(mannered(OURS, "drip"))),
    Behaviour("falls silent within the list", "failed", always(mannered(OURS, "stall"))),
    Behaviour("hangs after the list, healthy", "failed", HUNG_CHAT),
    Behaviour("falls silent within the answer", "failed", always(chat=mannered(TEXT, "stall"))),
    Behaviour("has a dead worker, healthy", "failed", always(chat=Reply(status=503))),
    Behaviour("has no chat template", "failed", always(chat=Reply(status=400))),
    Behaviour("answers without text", "failed", no_text),
    Behaviour("answers without a choice, or with an error in a 200", "failed", no_choice),
    Behaviour("answers what is no JSON", "failed", no_json),
)
CRASHES = (
    Behaviour("crashes", "failed", always(), listens=False, turns={0.2: CRASHED}),
    Behaviour(
        "crashes slowly, and again after it was restarted",
        "failed",
        always(),
        listens=False,
        turns={
            0: FakeObservation(restart_count=1),
            0.4: FakeObservation(state="restarting", exit_code=1, restart_count=2),
        },
    ),
    Behaviour(
        "crashes while another server is silent on the port", "failed", HUNG_LIST, turns={0.2: CRASHED}
    ),
    Behaviour(
        "crashes during the first answer, unnoticed by a proxy", "failed", HUNG_CHAT, turns={0.2: CRASHED}
    ),
)
STALLED = (Behaviour("never listens", "stalled", always(), listens=False),)
BEHAVIOURS = (*READY, *NEVER, *CRASHES, *STALLED)
