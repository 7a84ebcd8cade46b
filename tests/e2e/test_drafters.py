"""Drafters on real vLLM 0.32.0 (CPU): the text stays the same, and the start's verdict on each is right."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
import requests

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, Generated, Publish
from deckard_deploy.cli.drafter import prove_drafter
from deckard_deploy.connection import NO_ACCESS
from deckard_deploy.errors import StartFailedError
from deckard_deploy.measuring.acceptance import measure
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import HostPaths, build_plan
from deckard_deploy.weights import tiny_assistant, tiny_gemma4
from deckard_deploy.weights.tiny_script import COUNT_TEXT, PLAIN_TEXT

START_SECONDS = 400

pytestmark = pytest.mark.vllm


def planned(folder: Path, port: int, drafter: str) -> LaunchPlan:
    """The cpu profile's own line; its target in BF16, as the formats of 4 bits need the plugin."""
    choice = Deployment(engine="vllm-0.32.0-cpu", drafter=drafter, publish=Publish(port=port))
    names = ("models", "cache", "patches", "deployments")
    models, caches, patches, deployments = (PurePosixPath(folder / name) for name in names)
    paths = HostPaths(models=models, caches=caches, patches=patches, deployments=deployments)
    tiny_gemma4.write(folder / "models" / "tiny-gemma4")
    weights = library.model(drafter).weights
    assert isinstance(weights, Generated)
    tiny_assistant.write(folder / "models" / drafter, kind=weights.kind)
    return build_plan(resolve(choice, profile=library.profile("cpu")), paths)


@contextmanager
def serving(python: Path, plan: LaunchPlan, log: Path) -> Iterator[None]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), **plan.environment}
    command = [str(python.with_name("vllm")), "serve", *plan.arguments]
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            until = time.monotonic() + START_SECONDS
            while not listens(plan):
                assert server.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < until, log.read_text()[-3000:]
                time.sleep(1)
            yield
        finally:
            server.terminate()


def listens(plan: LaunchPlan) -> bool:
    try:
        return requests.get(f"{plan.base_url}/models", timeout=5).ok
    except requests.RequestException:
        return False


def said(plan: LaunchPlan, question: str) -> str:
    body = {
        "model": plan.served_name,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 30,
        "temperature": 0,
    }
    answer = requests.post(f"{plan.base_url}/chat/completions", json=body, timeout=60).json()
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("drafter", "least", "most", "advice"),
    [
        ("tiny-assistant", 0.85, 1.0, "keep (100% of "),
        ("tiny-assistant-short", 0.2, 0.3, "draft fewer tokens: --set drafter_tokens=1 ("),
        ("tiny-assistant-random", 0.0, 0.03, None),
    ],
)
def test_a_drafter_is_judged_and_changes_no_word(  # noqa: PLR0917  fixtures beside a table
    new_engine_python: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
    drafter: str,
    least: float,
    most: float,
    advice: str | None,
) -> None:
    plan = planned(tmp_path, free_port(), drafter)
    lines: list[str] = []
    with serving(new_engine_python, plan, tmp_path / "server.log"):
        assert said(plan, "hello") == PLAIN_TEXT
        assert said(plan, "count") == (COUNT_TEXT * 3)[: len(said(plan, "count"))]
        rate = measure(plan.base_url, plan.served_name).acceptance_rate
        assert rate is not None
        assert least <= rate <= most
        if advice is None:
            with pytest.raises(StartFailedError, match="does not fit: 0% of"):
                prove_drafter(plan, NO_ACCESS, lines.append)
        else:
            prove_drafter(plan, NO_ACCESS, lines.append)
            assert lines[0].startswith(f"drafter  {advice}")
    layers = "Gemma4 MTP: draft layer 1 (full_attention)"
    assert layers in (tmp_path / "server.log").read_text()
