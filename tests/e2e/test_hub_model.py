"""A model of a repository: read, pulled, verified and served by the real vLLM 0.19.1, from a hub on this machine."""

import json
from pathlib import Path

import pytest

from deckard_deploy.rehearsal import gemma4
from deckard_deploy.rehearsal.script import PLAIN_TEXT
from tests.e2e.conftest import Tool
from tests.support.hub_server import COMMIT, REPO, Hub, running
from tests.support.ports import free_port

pytestmark = pytest.mark.vllm
NAME = "from-hub"


@pytest.mark.usefixtures("engine_python")
def test_repository_is_pinned_pulled_and_served(tool: Tool, tmp_path: Path) -> None:
    folder = gemma4.write(tmp_path / "tiny")
    hub = Hub({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    with running(hub):
        chosen = ("--profile", "cpu", "--model", REPO, "--name", NAME, "--port", str(free_port()))
        planned = tool("plan", *chosen, HF_ENDPOINT=hub.url)
        assert COMMIT in planned.stdout + planned.stderr
        assert hub.served("model.safetensors") < len(hub.files["model.safetensors"])  # the headers alone
        tool("up", *chosen, HF_ENDPOINT=hub.url)
    try:
        # The hub is gone: what runs, and what is stored, needs it no more.
        answer = json.loads(tool("chat", "--name", NAME, "--json", "Hello?").stdout)
        assert answer["choices"][0]["message"]["content"] == PLAIN_TEXT
        assert "nothing to do" in tool("up", *chosen, HF_ENDPOINT=hub.url).stderr
        tool("verify", *chosen[:4], HF_ENDPOINT=hub.url)
    finally:
        tool("down", "--name", NAME, "--purge", check=False)


def test_repository_with_code_is_refused(tool: Tool, tmp_path: Path) -> None:
    folder = gemma4.write(tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    config = json.loads(files["config.json"])
    files["config.json"] = json.dumps({**config, "auto_map": {"AutoModel": "tool.Model"}}).encode()
    hub = Hub(files)
    with running(hub):
        own = {"HF_ENDPOINT": hub.url, "DECKARD_HOME": str(tmp_path / "state")}
        refused = tool("plan", "--profile", "cpu", "--model", REPO, check=False, **own)
    assert refused.returncode == 4
    assert "auto_map" in refused.stderr
