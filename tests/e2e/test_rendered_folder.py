"""GitOps: a folder in git, started by compose alone in another namespace with an empty home, then adopted.

The engine, nginx, docker, compose and git are real. The machine that starts the folder has neither this tool's files
nor its state; weights are copied, as a person would download them.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Tool, docker
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker
NAME = "gitops"
ENGINE = f"deckard-{NAME}"
START_S = 300.0
# Nothing of the caller's: no variable, no home. `/tmp` of the caller stays, where the clone is.
ELSEWHERE = ("unshare", "--mount", "--uts", "--ipc", "env", "-i", f"PATH={os.environ['PATH']}", "HOME=/mnt")


def elsewhere(folder: Path, command: str) -> str:
    """Run a shell line in the folder, in a namespace of its own with an empty home."""
    line = f"mount -t tmpfs tmpfs /mnt && cd {folder} && {command}"
    done = subprocess.run([*ELSEWHERE, "sh", "-ec", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def options(image: str, gateway_image: str) -> list[str]:
    choice = ["--profile", "cpu", "--engine", "vllm-0.19.1-cpu-docker", "--image", image, "--name", NAME]
    return [*choice, "--set", f"gateway_image={gateway_image}", "--port", str(free_port())]


@pytest.fixture(scope="module")
def clone(
    tool: Tool, options: list[str], home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The rendered folder, through git, with weights; its containers are removed in the end."""
    rendered, cloned = tmp_path_factory.mktemp("rendered"), tmp_path_factory.mktemp("machine") / "stack"
    tool("render", "all", *options, "-o", str(rendered))
    git(rendered, "init", "--quiet")
    git(rendered, "add", "--all")
    git(rendered, "commit", "--quiet", "--message", "stack")
    # As on a machine with a strict umask: files that only their owner can read.
    subprocess.run(["git", "clone", "--quiet", rendered, cloned], check=True, umask=0o077)
    tool("pull", *options, "--state-dir", str(rendered))
    shutil.copytree(rendered / "models", cloned / "models")
    yield cloned
    tool("down", "--name", NAME, check=False)
    elsewhere(cloned, "docker compose down --remove-orphans")
    shutil.rmtree(home / "keys", ignore_errors=True)  # adopted: every other test would need one from now on


def chat(base_url: str, key: str | None = None) -> int:
    body = {"model": "tiny-gemma4", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return requests.post(
            f"{base_url}/chat/completions", json=body, headers=headers, timeout=60
        ).status_code
    except requests.ConnectionError:
        return 0


def instance() -> str:
    return docker("inspect", "--format", "{{.Id}} {{.RestartCount}}", ENGINE)


def test_folder_runs_and_is_adopted(tool: Tool, options: list[str], clone: Path) -> None:
    base_url = f"http://127.0.0.1:{options[-1]}/v1"
    elsewhere(clone, "sh prepare.sh && docker compose up --detach")
    eventually(lambda: chat(base_url) == 200, START_S)
    patched = docker("exec", ENGINE, "sh", "-c", "sha256sum /usr/local/lib/python3.12/dist-packages/vllm/entrypoints/"
                     "openai/chat_completion/serving.py")  # fmt: skip
    assert patched.split()[0] in (clone / "prepare.sh").read_text()

    key = elsewhere(clone, "sh keys.sh add dora").strip()
    eventually(lambda: (chat(base_url), chat(base_url, key)) == (401, 200))
    before = instance()

    # Until it is adopted, every verb refuses with one sentence, and touches nothing.
    for words in (("up", *options), ("up", *options, "--dry-run")):
        refused = tool(*words, check=False)
        assert refused.returncode == 3
        assert f"error: {ENGINE} was started by hand from {clone} and is not adopted" in refused.stderr
    assert (instance(), chat(base_url, key)) == (before, 200)

    assert tool("adopt", str(clone)).stdout.strip() == base_url
    assert instance() == before
    assert (chat(base_url), chat(base_url, key)) == (401, 200)
    assert "condition      ready" in tool("status", "--name", NAME).stdout
    assert "dora" in tool("keys", "list").stdout
    tool("up", *options)  # the same choice, whose folders would be others
    tool("adopt", str(clone))  # again: nothing changes
    assert instance() == before

    # A rolling change, and back to what was adopted.
    tool("up", *options, "--set", "max-num-seqs=2")
    assert (instance() != before, chat(base_url, key)) == (True, 200)
    tool("rollback", "--name", NAME)
    assert chat(base_url, key) == 200
    sources = docker("inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", ENGINE)
    assert f"{clone}/models/tiny-gemma4" in sources.split()
    tool("keys", "revoke", "dora")
    assert chat(base_url, key) == 401
    tool("down", "--name", NAME)
    assert docker("ps", "--all", "--quiet", "--filter", f"label=deckard.deployment={NAME}") == ""


def test_drift_is_named(tool: Tool, clone: Path) -> None:
    assert tool("render", "--check", str(clone)).stdout == ""
    nginx = clone / "nginx.conf"
    nginx.write_text(nginx.read_text().replace("limit_conn clients 256;", ""))
    found = tool("render", "--check", str(clone), check=False)
    assert (found.returncode, found.stdout) == (4, "nginx.conf: changed by hand\n")
