"""`connect`: configurations in the syntax of their clients, and the request that each client makes."""

import ast
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest
import yaml

from deckard_deploy.cli.main import run
from deckard_deploy.errors import BadInputError, NetworkError
from deckard_deploy.operations.connect import (
    CLIENTS,
    Endpoint,
    check,
    client,
    endpoint_of,
    notes,
    require_task,
)
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import SILENT
from deckard_deploy.system.http import ANONYMOUS
from tests.support.fake_deployment import FakeDeployment
from tests.support.misbehaving_server import Misbehaving, Reply

OPEN = Endpoint(
    "http://127.0.0.1:8000/v1", "deckard-31b", 32768, None, needs_key=False, vllm_version="0.32.0"
)
CLOSED = OPEN._replace(
    base_url="https://192.168.1.20:8000/v1",
    certificate="/srv/deckard/gateway/certificate.pem",
    needs_key=True,
)


@pytest.mark.parametrize("endpoint", [OPEN, CLOSED])
@pytest.mark.parametrize("name", CLIENTS)
def test_configuration_names_endpoint_model_and_key(name: str, endpoint: Endpoint) -> None:
    text = CLIENTS[name].configuration(endpoint)
    assert endpoint.root in text
    assert endpoint.model in text or name == "open-webui"  # which lists the models itself
    assert ("DECKARD_KEY" in text) is endpoint.needs_key
    if endpoint.certificate and name not in ("opencode", "codex"):  # both read the variables of their runtime
        assert endpoint.certificate in text


@pytest.mark.parametrize("endpoint", [OPEN, CLOSED])
def test_configurations_are_in_the_syntax_of_their_client(endpoint: Endpoint) -> None:
    text = {name: known.configuration(endpoint) for name, known in CLIENTS.items()}
    for name in ("openai-python", "langchain", "litellm", "embeddings"):
        ast.parse(text[name])
    assert json.loads(text["opencode"])["provider"]["deckard"]["options"]["baseURL"] == endpoint.base_url
    codex = tomllib.loads(text["codex"])
    assert codex["model_providers"][codex["model_provider"]]["base_url"] == endpoint.base_url
    service = yaml.safe_load(text["open-webui"])["services"]["open-webui"]
    assert service["environment"]["OPENAI_API_BASE_URL"] == endpoint.base_url
    for name in ("curl", "claude-code", "rerank"):
        assert subprocess.run(["sh", "-n"], input=text[name], text=True, check=False).returncode == 0
    (body,) = re.findall(r"-d '(.*)'", text["curl"])
    assert json.loads(body)["model"] == endpoint.model
    if node := shutil.which("node"):
        parsed = subprocess.run(
            [node, "--check", "--input-type=module", "-"], input=text["openai-js"], text=True, check=False
        )
        assert parsed.returncode == 0


def test_notes_say_what_a_client_lacks() -> None:
    said = list(notes(CLIENTS["claude-code"], CLOSED._replace(context=1024, vllm_version="0.19.1"), "alice"))
    assert [text for text in said if "keys add alice" in text]
    assert [text for text in said if "--set max-model-len=32768" in text]
    assert [text for text in said if "vLLM 0.19.1 refuses a system message" in text]
    assert list(notes(CLIENTS["claude-code"], OPEN, None)) == []
    assert list(notes(CLIENTS["curl"], OPEN._replace(context=1024, vllm_version="0.19.1"), None)) == []


@pytest.fixture
def replies() -> list[Reply]:
    return [Reply(body=b"data: Hello")]


@pytest.fixture
def served(replies: list[Reply]) -> Iterator[Endpoint]:
    with closing(Misbehaving(lambda *_: replies[0], Random(0))) as server:
        server.listen()
        yield OPEN._replace(base_url=server.url)


@pytest.mark.parametrize("name", CLIENTS)
def test_check_says_what_came(name: str, served: Endpoint, replies: list[Reply]) -> None:
    assert check(name, served, ANONYMOUS).endswith("this tool's own key: 200, 11 bytes: data: Hello …")
    replies[0] = Reply(body=b'{"error": "no"}', status=401)
    with pytest.raises(NetworkError, match=r'401 \{"error": "no"\}'):
        check(name, served, ANONYMOUS)


def test_check_takes_the_key_of_the_variable(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECKARD_KEY", "dk-alice-1")
    said = check("curl", served, ANONYMOUS)
    assert "with the key of DECKARD_KEY" in said
    assert "dk-alice-1" not in said


def test_endpoint_is_that_of_the_running_release(
    fake: FakeDeployment, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = fake.proven(fake.plan()).plan
    endpoint, _ = endpoint_of(Selection(fake.state.root), SILENT)
    assert endpoint == Endpoint(plan.base_url, "t", None, None, needs_key=False, vllm_version="0.19.1")
    assert run(["connect", "opencode", "--state-dir", str(fake.state.root)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["model"] == "deckard/t"
    assert run(["connect", "curl", "--check", "--state-dir", str(fake.state.root)]) == 0
    assert "200" in capsys.readouterr().out
    assert run(["connect"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CLIENTS)


def test_client_of_another_kind_of_endpoint_is_refused() -> None:
    vectors, scores = OPEN._replace(task="embed"), OPEN._replace(task="score")
    with pytest.raises(
        BadInputError, match="answers with vectors, which claude-code does not ask for"
    ) as told:
        require_task("claude-code", vectors)
    assert told.value.hint == "deckard-deploy connect embeddings"
    with pytest.raises(BadInputError, match="answers with scores"):
        require_task("embeddings", scores)
    with pytest.raises(BadInputError, match="answers with texts"):
        require_task("rerank", OPEN)
    require_task("rerank", vectors)
    require_task("rerank", scores)
    require_task("curl", OPEN)


def test_unknown_client_is_refused() -> None:
    with pytest.raises(BadInputError, match="no client is called 'emacs'; known: curl"):
        client("emacs")
