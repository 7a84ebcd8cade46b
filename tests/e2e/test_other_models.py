"""Two models that are no Gemma 4, next to each other on the real vLLM 0.32.0: one chats, one answers with vectors."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from openai import OpenAI

from tests.e2e.conftest import Tool
from tests.support.other_models import HIDDEN, write_embedder, write_llama
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.vllm
CHAT, VECTORS = "llama", "cpu-embed"  # the second name is the tool's own
START_S = 900.0  # on a busy machine; only ends a test that has failed


def status(tool: Tool, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(tool("status", "--name", name, "--json", check=False).stdout)
    return facts


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_llama(folder / "llama")
    write_embedder(folder / "embedder")
    return folder


@pytest.fixture(scope="module")
def chat(tool: Tool, models: Path) -> Iterator[str]:
    """The base URL of the Llama, which `models add` keeps under a name."""
    tool("models", "add", "my-llama", str(models / "llama"))
    assert "LlamaForCausalLM" in tool("models", "list").stdout
    options = ("--profile", "cpu", "--engine", "vllm-0.32.0-cpu", "--model", "my-llama", "--name", CHAT)
    planned = tool("plan", *options)
    assert "memory is not computed for the architecture of my-llama" in planned.stdout
    yield tool("up", *options, "--port", str(free_port())).stdout.strip()
    tool("down", "--name", CHAT, check=False)
    tool("models", "remove", "my-llama", check=False)


@pytest.fixture(scope="module")
def vectors(chat: str, tool: Tool, models: Path) -> Iterator[str]:
    """The base URL of the model of vectors, started next to the other."""
    assert chat
    options = ("--profile", "cpu", "--model", str(models / "embedder"), "--port", str(free_port()))
    shared = json.loads(tool("plan", *options, "--json").stdout)["shared"]
    (beside,) = [each for each in shared["neighbours"] if each["deployment"] == CHAT]
    # Its KV cache of 1 GiB, and its weights.
    assert beside["bytes"] == 2**30 + (models / "llama" / "model.safetensors").stat().st_size
    assert 0 < shared["free"] < shared["total"]
    yield tool("up", *options).stdout.strip()
    tool("down", "--name", VECTORS, check=False)


def test_model_that_is_no_gemma_answers(chat: str, tool: Tool) -> None:
    assert chat
    answer = json.loads(tool("chat", "--name", CHAT, "--json", "Hello?").stdout)
    assert answer["usage"]["completion_tokens"] > 0
    assert status(tool, CHAT)["model"] == "my-llama"


def test_vectors_are_served_next_to_chat(chat: str, vectors: str, tool: Tool) -> None:
    with OpenAI(base_url=vectors, api_key="none") as client:
        found = client.embeddings.create(model="embedder", input=["one", "two", "one"]).data
    first, second, third = (each.embedding for each in found)
    assert len(first) == HIDDEN
    assert first == pytest.approx(third, rel=1e-3)
    assert first != pytest.approx(second, rel=1e-3)
    body = {"model": "embedder", "query": "one", "documents": ["two", "one"]}
    ranked = requests.post(f"{vectors}/rerank", json=body, timeout=60).json()["results"]
    assert [each["index"] for each in ranked] == [1, 0]
    assert requests.get(f"{chat}/models", timeout=60).json()["data"][0]["id"] == "my-llama"
    assert [status(tool, name)["answers"] for name in (CHAT, VECTORS)] == ["ready", "ready"]


def test_each_endpoint_has_its_own_routes(chat: str, vectors: str) -> None:
    routes = ("/chat/completions", "/completions", "/embeddings", "/rerank", "/score")
    body = {"model": "x"}
    found = {
        url: [requests.post(f"{url}{route}", json=body, timeout=60).json() for route in routes]
        for url in (chat, vectors)
    }
    closed = {
        url: [answer["error"].get("code") == "unknown_route" for answer in answers]
        for url, answers in found.items()
    }
    assert closed == {chat: [False, False, True, True, True], vectors: [True, True, False, False, False]}
    tokenize = vectors.removesuffix("/v1") + "/tokenize"
    assert requests.post(tokenize, json=body, timeout=60).status_code == 404


def test_verbs_say_what_the_endpoint_is(vectors: str, tool: Tool) -> None:
    assert vectors
    refused = tool("chat", "--name", VECTORS, "Hello?", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "cpu-embed answers with vectors, and chat needs texts" in refused.stderr
    assert "cpu-embed answers with vectors" in tool("bench", "--name", VECTORS, check=False).stderr
    checked = tool("connect", "embeddings", "--check", "--name", VECTORS).stdout
    assert f"POST {vectors}/embeddings" in checked
    assert "200" in checked
    snippet = tool("connect", "embeddings", "--name", VECTORS).stdout
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"[{HIDDEN}, {HIDDEN}]", done.stderr


def test_interrupted_switch_leaves_first_running(chat: str, vectors: str, tool: Tool, home: Path) -> None:
    assert vectors
    tool("down", "--name", VECTORS)
    command = [sys.executable, "-m", "deckard_deploy", "switch", CHAT, VECTORS]
    environment = {**os.environ, "DECKARD_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as switching:
        eventually(lambda: engines(home, VECTORS), START_S)
        assert engines(home, CHAT) == []
        switching.send_signal(signal.SIGINT)
        _, said = switching.communicate(timeout=START_S)
    assert switching.returncode == 130, said
    assert engines(home, VECTORS) == []
    assert status(tool, CHAT)["answers"] == "ready"
    assert requests.get(f"{chat}/models", timeout=60).json()["data"][0]["id"] == "my-llama"
    assert status(tool, VECTORS)["condition"] == "stopped"


def engines(home: Path, name: str) -> list[int]:
    """Return the processes of the deployment's engine."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DECKARD_DEPLOYMENT") == str(home / "deployments" / name):
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
