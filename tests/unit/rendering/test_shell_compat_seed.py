"""`--compat seed` has the same image, options, environment and mounts as the model card.

The constants here state the card's content. Where DECKARD_MODEL_CARD names a copy of the card (in CI), its
own text is compared too.
"""

import os
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.rendering.shell import render_run

IMAGE = "ghcr.io/aeon-7/vllm-spark-gemma4-nvfp4-awq:latest"
OPTIONS = {
    "model": "/models/deckard",
    "--served-model-name": "deckard-31b",
    "--quantization": "modelopt",
    "--dtype": "auto",
    "--kv-cache-dtype": "auto",
    "--max-model-len": "65536",
    "--max-num-seqs": "4",
    "--gpu-memory-utilization": "0.85",
    "--trust-remote-code": "",
    "--enable-chunked-prefill": "",
    "--enable-prefix-caching": "",
    "--enable-auto-tool-choice": "",
    "--tool-call-parser": "gemma4",
    "--reasoning-parser": "gemma4",
}
ENVIRONMENT = {
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "TORCH_MATMUL_PRECISION": "high",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}
MOUNTS = {("~/models/deckard-31b", "/models/deckard", "rw")}


@pytest.fixture
def plan() -> LaunchPlan:
    return build_plan(
        resolve(Deployment(), profile=library.profile("spark"), compatibility=library.compatibility("seed"))
    )


def serve_options(tokens: list[str]) -> dict[str, str]:
    """Parse `exec vllm serve MODEL --a 1 --b` into a mapping."""
    assert "serve" in tokens
    model, *rest = tokens[tokens.index("serve") + 1 :]
    options, name = {"model": model}, ""
    for token in rest:
        if token.startswith("--"):
            name = token
            options[name] = ""
        else:
            options[name] = token
    return options


def compose_meaning(text: str) -> dict[str, Any]:
    (service,) = yaml.safe_load(text)["services"].values()
    environment = service["environment"]
    if isinstance(environment, list):
        environment = dict(item.split("=", 1) for item in environment)
    command = service["command"]
    tokens = shlex.split(command[2].replace("\\\n", " ")) if command[:2] == ["bash", "-c"] else command
    return {
        "image": service["image"],
        "options": serve_options([*service.get("entrypoint", []), *tokens]),
        "environment": environment,
        "mounts": {mount(volume) for volume in service["volumes"]},
        "restart": service["restart"],
        "network": service["network_mode"],
        "ipc": service["ipc"],
        "name": service["container_name"],
        "devices": service["deploy"]["resources"]["reservations"]["devices"],
    }


def mount(volume: Any) -> tuple[str, str, str]:
    if isinstance(volume, str):
        source, target, *mode = volume.split(":")
        return source, target, mode[0] if mode else "rw"
    return volume["source"], volume["target"], "ro" if volume["read_only"] else "rw"


def run_meaning(line: str) -> dict[str, Any]:
    tokens = shlex.split(line.replace("\\\n", " "), comments=True)
    at = tokens.index(IMAGE)
    before, after = tokens[:at], tokens[at + 1 :]
    entrypoint = before[before.index("--entrypoint") + 1] if "--entrypoint" in before else ""
    after = shlex.split(after[2]) if after[:2] == ["bash", "-c"] else [entrypoint, *after]
    following = list(pairwise(before))
    return {
        "options": serve_options(after),
        "environment": dict(b.split("=", 1) for a, b in following if a in ("-e", "--env")),
        "mounts": {mount(b) for a, b in following if a in ("-v", "--volume")},
        "gpus": [b for a, b in following if a == "--gpus"],
        "ipc": [b for a, b in following if a == "--ipc"],
        "network": [b for a, b in following if a == "--network"],
        "detached": {"-d", "--detach"} & set(before) != set(),
    }


def test_compose_file_matches_model_card(plan: LaunchPlan) -> None:
    meaning = compose_meaning(render_compose(plan))
    assert meaning["image"] == IMAGE
    assert meaning["options"] == OPTIONS
    assert meaning["environment"] == ENVIRONMENT
    assert meaning["mounts"] == MOUNTS
    assert (meaning["restart"], meaning["network"], meaning["ipc"]) == ("unless-stopped", "host", "host")


def test_run_line_matches_model_card(plan: LaunchPlan) -> None:
    meaning = run_meaning(render_run(plan))
    assert meaning["options"] == OPTIONS
    assert meaning["environment"] == ENVIRONMENT
    assert meaning["mounts"] == MOUNTS
    assert (meaning["gpus"], meaning["ipc"], meaning["network"]) == (["all"], ["host"], ["host"])


def block(card: str, first: str, last: str) -> str:
    start = card.index(first)
    return card[start : card.index(last, start)]


def test_renderings_match_model_card_text(plan: LaunchPlan) -> None:
    if "DECKARD_MODEL_CARD" not in os.environ:
        pytest.skip("DECKARD_MODEL_CARD does not name a copy of the model card")
    card = Path(os.environ["DECKARD_MODEL_CARD"]).read_text(encoding="utf-8")
    compose = block(card, "services:\n", "Key Deployment Flags")
    run = block(card, "docker run -d", "Startup takes")
    assert compose_meaning(render_compose(plan)) == compose_meaning(compose)
    assert run_meaning(render_run(plan)) == run_meaning(run)
