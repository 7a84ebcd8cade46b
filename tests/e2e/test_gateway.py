"""Real nginx in front of the real vLLM, 0.19.1 and 0.32.0: what it lets through; and what vLLM's own --api-key does."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil
import pytest
import requests
from openai import OpenAI

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Publish
from deckard_deploy.measuring.metrics import metrics_url, scrape
from deckard_deploy.operations.key_usage import usage_on
from deckard_deploy.operations.plan import plan_for_host
from deckard_deploy.operations.release import create_release
from deckard_deploy.patching import request_filter
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.rehearsal.script import PLAIN_TEXT
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys, KeyTerms
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.process.runtime import ProcessRuntime
from deckard_deploy.running.process.supervision import GATEWAY_LOG, ServerState
from deckard_deploy.running.releases import Releases
from deckard_deploy.system.http import EndpointCredentials
from deckard_deploy.system.versions import version_numbers
from tests.e2e.clients import until_ready
from tests.e2e.gateway_attacks import (
    CHAT,
    HOSTS,
    MESSAGE,
    ROUTES,
    Attack,
    answers,
    attacks,
    got_through,
    request,
)
from tests.e2e.neighbour import listening, listening_in_own_network, neighbour
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.vllm
MODEL, KEY = "tiny-gemma4", "sk-bare-0123456789"
JSON = {"Content-Type": "application/json"}
ALLOWED = {  # what vLLM may hear
    ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/responses"), ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"), ("GET", "/v1/models"), ("GET", "/health"), ("GET", "/metrics"),
}  # fmt: skip
ROUTE = re.compile(r"Route: (\S+), Methods: (.*)")
HEARD = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.1" \d')


@dataclass(frozen=True)
class GuardedEngine:
    """A deployment whose gateway asks for a key, and two clients."""

    base_url: str
    address: tuple[str, int]
    keys: Keys
    reload: Callable[[], None]
    log: Path
    alice: str
    carol: str
    engine: str

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def routes(self) -> set[tuple[str, str]]:
        """Method and path of everything that the server says it has."""
        return {
            (method.strip(), path)
            for path, methods in ROUTE.findall(self.log.read_text(errors="replace"))
            for method in methods.split(",")
        }

    def heard(self) -> set[tuple[str, str]]:
        """Method and path of every request that has reached the server."""
        return {(method, path) for method, path in HEARD.findall(self.log.read_text(errors="replace"))}


@pytest.fixture(scope="module", params=["vllm-0.19.1-cpu", "vllm-0.32.0-cpu"])
def engine(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """An engine of the catalog and its Python."""
    name = str(request.param)
    return name, request.getfixturevalue("engine_python" if "0.19.1" in name else "new_engine_python")


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, engine: tuple[str, Path], home: Path
) -> Iterator[GuardedEngine]:
    directory = StateDir(tmp_path_factory.mktemp("gateway") / "state")
    # Exposed, so that a key is asked for from the first request on; on loopback all the same: nobody is let in here.
    publish = Publish(expose="127.0.0.1", port=free_port(), tls=False)
    resolved = resolve(
        Deployment(name="gate", publish=publish, engine=engine[0]), profile=library.profile("cpu")
    )
    plan = plan_for_host(resolved, directory, None).model_copy(update={"patches": (), "plugin": None})
    assert plan.request_filter
    request_filter.build(Path(plan.request_filter.source))
    gemma4.write(directory.models / MODEL)
    # An earlier start has left its findings about the model there.
    directory.cache.symlink_to(home / "cache")
    keys, deployment = Keys(directory.root), directory.create("gate")
    with keys.lock():
        alice = keys.add("alice")
        carol = keys.add("carol", KeyTerms(requests=2))
    environment = dict(os.environ)
    files.write_gateway_files(plan, keys, environment=environment, say=print)
    vllm = engine[1].with_name("vllm")
    runtime = ProcessRuntime(deployment, program=lambda _: vllm, environment=environment, say=print)
    release, launch = create_release(plan, Releases(deployment))
    release.record(launch)
    runtime.start(release)

    def reload() -> None:
        with keys.lock():
            (deployment.folder / "gateway" / "access.conf").write_text(keys.access())
        runtime.reload()
        time.sleep(1)  # nginx starts new workers and sends the old ones home

    guarded = GuardedEngine(
        plan.base_url,
        ("127.0.0.1", plan.port),
        keys,
        reload,
        release.folder / "vllm.log",
        alice,
        carol,
        engine[0],
    )
    try:
        until_ready(f"{plan.base_url}/health/ready", lambda: "\n".join(runtime.tail(40)))
        yield guarded
    finally:
        runtime.stop()
        runtime.close()


def client(guarded: GuardedEngine, key: str) -> OpenAI:
    return OpenAI(base_url=guarded.base_url, api_key=key, max_retries=0, timeout=60)


def models(guarded: GuardedEngine, key: str) -> list[str]:
    with client(guarded, key) as asking:
        return [model.id for model in asking.models.list()]


def test_keys_are_counted_and_limited(guarded: GuardedEngine) -> None:
    """carol has two requests a minute; the client gets the stream that it asked for, without the tokens in it."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8}
    url, headers = f"{guarded.base_url}/chat/completions", guarded.headers(guarded.carol)
    whole = requests.post(url, json=asked, headers=headers, timeout=60)
    streamed = requests.post(url, json={**asked, "stream": True}, headers=headers, timeout=60)
    third = requests.post(url, json=asked, headers=headers, timeout=60)
    assert (whole.status_code, streamed.status_code, third.status_code) == (200, 200, 429)
    assert '"usage"' not in streamed.text
    assert 1 < int(third.headers["Retry-After"]) <= 60
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    own = EndpointCredentials(key=guarded.keys.own())
    (carol,) = [
        row for row in usage_on("gate", scrape(metrics_url(guarded.base_url), own)) if row.key == "carol"
    ]
    tokens = whole.json()["usage"]
    assert (carol.requests, carol.errors) == (3, 1)
    assert (carol.prompt_tokens, carol.generation_tokens) == (
        2 * tokens["prompt_tokens"],
        2 * tokens["completion_tokens"],
    )
    assert carol.first_token_s is not None
    assert carol.first_token_s > 0


def test_unsafe_fields_do_not_reach_an_open_release(guarded: GuardedEngine) -> None:
    url = f"{guarded.base_url}/chat/completions"
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8}
    release = "0.19.1" if "0.19.1" in str(guarded.engine) else "0.32.0"
    for field, open_before in (({"bad_words": ["zebra"]}, "0.30"), ({"prompt_embeds": "AAAA"}, "9")):
        said = requests.post(url, json=asked | field, headers=guarded.headers(guarded.alice), timeout=60)
        assert said.status_code == (400 if version_numbers(release) < version_numbers(open_before) else 200)
        assert said.ok or said.json()["error"]["code"] == "unsafe_field"


def test_chat_whole_and_streamed_agree(guarded: GuardedEngine) -> None:
    with client(guarded, guarded.alice) as asking:
        ask = asking.chat.completions
        whole = ask.create(model=MODEL, messages=[{"role": "user", "content": "Hello?"}], temperature=0)
        stream = ask.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello?"}], temperature=0, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert whole.choices[0].message.content == "".join(pieces) == PLAIN_TEXT
    assert len(pieces) > 2


def test_completion_whole_and_streamed_agree(guarded: GuardedEngine) -> None:
    with client(guarded, guarded.alice) as asking:
        ask = asking.completions
        whole = ask.create(model=MODEL, prompt="Hello?", max_tokens=8, temperature=0)
        stream = ask.create(model=MODEL, prompt="Hello?", max_tokens=8, temperature=0, stream=True)
        pieces = [chunk.choices[0].text for chunk in stream if chunk.choices]
    assert whole.choices[0].text == "".join(pieces)
    assert len(pieces) > 2


def test_response_whole_and_streamed_agree(guarded: GuardedEngine) -> None:
    with client(guarded, guarded.alice) as asking:
        ask = asking.responses
        whole = ask.create(model=MODEL, input="Hello?", temperature=0)
        events = list(ask.create(model=MODEL, input="Hello?", temperature=0, stream=True))
    assert whole.output_text == PLAIN_TEXT
    assert (
        "".join(event.delta for event in events if event.type == "response.output_text.delta") == PLAIN_TEXT
    )


def test_models_and_health_answer(guarded: GuardedEngine) -> None:
    assert MODEL in models(guarded, guarded.alice)
    # Some clients send it with a GET too.
    typed = {**guarded.headers(guarded.alice), "Content-Type": "application/json"}
    for name, headers in (("models", typed), ("health/live", {}), ("health/ready", {})):
        assert requests.get(f"{guarded.base_url}/{name}", headers=headers, timeout=10).status_code == 200


def test_stream_is_not_buffered(guarded: GuardedEngine) -> None:
    """nginx holds nothing back: the first piece is here while the engine still writes the last.

    A busy machine may hold a whole answer up, so one of five is enough; a proxy that collects would collect them all.
    """
    body = {**json.loads(CHAT), "max_tokens": 60, "stream": True, "ignore_eos": True}
    url, headers = f"{guarded.base_url}/chat/completions", guarded.headers(guarded.alice)

    def one_by_one() -> bool:
        with requests.post(url, json=body, headers=headers, stream=True, timeout=60) as response:
            times = [time.monotonic() for _ in response.iter_content(None)]
        return len(times) > 20 and times[len(times) // 2] - times[0] > 0.2 * (times[-1] - times[0])

    assert any(one_by_one() for _ in range(5))


@pytest.mark.parametrize("key", ["", "x", f"dk-alice-{64 * '0'}", f"dk-bob-{64 * '0'}"])
def test_missing_and_wrong_keys_are_refused(guarded: GuardedEngine, key: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        models(guarded, key or "none")
    for method, path, body in ROUTES[:-1]:
        url = guarded.base_url.removesuffix("/v1") + path
        headers = {"Content-Type": "application/json", **(guarded.headers(key) if key else {})}
        assert requests.request(method, url, data=body, headers=headers, timeout=10).status_code == 401


def test_revoked_key_is_refused_without_restart(guarded: GuardedEngine) -> None:
    with guarded.keys.lock():
        bob = guarded.keys.add("bob")
    guarded.reload()
    assert models(guarded, bob)
    with guarded.keys.lock():
        guarded.keys.revoke("bob")
    guarded.reload()
    with pytest.raises(openai.AuthenticationError):
        models(guarded, bob)
    assert models(guarded, guarded.alice)


def test_valid_key_reaches_no_other_route(guarded: GuardedEngine) -> None:
    others = guarded.routes() - (ALLOWED - {("GET", "/health"), ("GET", "/metrics")})
    assert len(others) > 15  # of a generating model, without development mode
    got = {}
    for method, path in sorted(others):
        url = guarded.base_url.removesuffix("/v1") + re.sub(r"{[^}]*}", "x", path)
        answer = requests.request(method, url, json={}, headers=guarded.headers(guarded.alice), timeout=10)
        got[method, path] = answer.status_code
    assert set(got.values()) <= {404, 405}  # 405: one of its own routes by another method


def test_no_attack_reaches_engine(guarded: GuardedEngine) -> None:
    tried = attacks()
    assert len({attack.data for attack in tried}) >= 300
    assert got_through(guarded.address, tried) == []
    assert guarded.heard() <= ALLOWED


def test_valid_key_smuggles_no_second_request(guarded: GuardedEngine) -> None:
    """The attacks on framing again, with alice's key on the outer request: only hers may be answered."""
    marks = 0
    for attack in attacks():
        if attack.name.startswith("framing: POST"):
            head, _, rest = attack.data.partition(b"\r\n")
            keyed = b"\r\n".join([head, f"Authorization: Bearer {guarded.alice}".encode(), rest])
            marks += answers(guarded.address, keyed, patience_s=0.5).count(b'"object":"list"')
    assert marks == 0
    assert guarded.heard() <= ALLOWED


def test_only_own_key_reads_engine_metrics(guarded: GuardedEngine) -> None:
    url = guarded.base_url.removesuffix("/v1") + "/metrics"
    assert requests.get(url, headers=guarded.headers(guarded.alice), timeout=10).status_code == 404
    assert "vllm:" in requests.get(url, headers=guarded.headers(guarded.keys.own()), timeout=10).text


def test_cross_origin_request_gets_no_permission(guarded: GuardedEngine) -> None:
    origin = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    said = requests.options(f"{guarded.base_url}/models", headers=origin, timeout=10)
    assert said.status_code == 204
    assert [name for name in said.headers if name.lower().startswith("access-control")] == []
    answer = requests.get(
        f"{guarded.base_url}/models", headers={**guarded.headers(guarded.alice), **origin}, timeout=10
    )
    assert [name for name in answer.headers if name.lower().startswith("access-control")] == []


def test_oversized_body_is_refused(guarded: GuardedEngine) -> None:
    headers = f"Authorization: Bearer {guarded.alice}\r\nContent-Type: application/json\r\nContent-Length: {33 << 20}"
    said = answers(guarded.address, request("POST", "/v1/chat/completions", more=headers))
    assert said.startswith(b"HTTP/1.1 413 ")


def test_log_has_no_key_and_no_prompt(guarded: GuardedEngine) -> None:
    secret = guarded.alice.rpartition("-")[2]
    body = {**json.loads(CHAT), "messages": [{"role": "user", "content": "xylophone"}]}
    requests.post(
        f"{guarded.base_url}/chat/completions", json=body, headers=guarded.headers(guarded.alice), timeout=60
    )
    requests.get(
        f"{guarded.base_url}/models?key=xylophone", headers=guarded.headers(guarded.alice), timeout=10
    )
    requests.post(
        f"{guarded.base_url}/messages", data=MESSAGE, headers={"x-api-key": guarded.alice, **JSON}, timeout=60
    )
    gateway_log = guarded.log.with_name(GATEWAY_LOG)
    # The supervisor writes what nginx says, a moment after the answer.
    eventually(lambda: 'gateway dk-alice "/v1/messages" 200' in gateway_log.read_text(errors="replace"))
    log = gateway_log.read_text(errors="replace") + guarded.log.read_text(errors="replace")
    assert 'gateway dk-alice "/v1/chat/completions" 200' in log
    assert secret not in log
    assert "xylophone" not in log
    folder = guarded.log.parents[2]
    assert [
        path for path in folder.rglob("*") if path.is_file() and secret in path.read_text(errors="replace")
    ] == []


@pytest.fixture(scope="module")
def bare(guarded: GuardedEngine, engine: tuple[str, Path], home: Path) -> Iterator[tuple[str, int]]:
    """The same vLLM as it comes, with its own --api-key."""
    state = guarded.log.parents[4]
    port, log, model = free_port(), state / "bare.log", state / "models" / MODEL
    options = ("--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL, "--api-key", KEY)
    more = ("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "4")
    command = [str(engine[1].with_name("vllm")), "serve", str(model), *options, *more]
    cache = {"VLLM_CACHE_ROOT": str(home / "cache" / engine[0] / "vllm")}
    environment = {**os.environ, **library.profile("cpu").environment, **cache}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            until_ready(f"http://127.0.0.1:{port}/health", lambda: log.read_text(errors="replace")[-2000:])
            yield "127.0.0.1", port
        finally:
            server.terminate()


def test_attacks_succeed_without_gateway(engine: tuple[str, Path], bare: tuple[str, int]) -> None:
    """Without the gateway: on 0.19.1 every Host attack on every route of /v1 is answered; much needs no key at all."""
    through = got_through(bare, [each for each in attacks() if "framing" not in each.name], patience_s=10)
    hosts = {(path, f"host {host} on {path}") for host in HOSTS for _, path, _ in ROUTES}
    # 0.32.0 judges the path that it serves, not the one that the Host header makes of it; neither guards /metrics.
    passed = {name for path, name in hosts if "0.19.1" in engine[0] or not path.startswith("/v1/")}
    assert {name for _, name in hosts} & set(through) == passed
    assert {"path '/version'", "path '/load'"} <= set(through)
    without = Attack("no key, no trick", request("GET", "/v1/models"))
    assert got_through(bare, [without]) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can add a network namespace")
def test_store_of_torch_is_not_reached_from_another_machine(
    engine: tuple[str, Path], bare: tuple[str, int], guarded: GuardedEngine
) -> None:
    """The bare engine is the control: 0.19.1's store takes whatever a neighbour writes."""
    state = ServerState.model_validate_json((guarded.log.parents[2] / "process.json").read_text())
    assert state.server
    bare_server = next(
        process.pid for process in psutil.Process().children() if str(bare[1]) in process.cmdline()
    )
    ours, control = listening_in_own_network(state.server.pid), listening(bare_server)
    with neighbour() as other:
        reached = {port for port in control if other.writes_to_store(engine[1], port)}
        assert len(reached) == ("0.19.1" in engine[0])  # 0.32.0 has it in a file (uniproc_executor.py:80)
        assert len(ours) == ("0.19.1" in engine[0])
        assert [port for port in ours if other.writes_to_store(engine[1], port)] == []


def test_invocations_need_no_key_without_gateway(bare: tuple[str, int], guarded: GuardedEngine) -> None:
    """The whole of inference, open beside /v1 in both releases; closed at the gateway, with a key and without."""
    headers = {"Content-Type": "application/json"}
    url = f"http://{bare[0]}:{bare[1]}/invocations"
    assert requests.post(url, data=CHAT, headers=headers, timeout=60).status_code == 200
    closed = guarded.base_url.removesuffix("/v1") + "/invocations"
    for more in ({}, guarded.headers(guarded.alice)):
        assert requests.post(closed, data=CHAT, headers={**headers, **more}, timeout=10).status_code == 404
