"""A locked image is run by its digest, an unlocked one and somebody else's by their tags."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from deckard_deploy.cli.main import cli
from deckard_deploy.planning.gateway import IMAGE as GATEWAY

IMAGE, DIGEST = "vllm/vllm-openai:v0.19.1-cu130", "sha256:" + "a" * 64


def image(*arguments: str, of: str = "vllm") -> str:
    done = CliRunner().invoke(cli, ["render", "compose", *arguments], catch_exceptions=False)
    service = yaml.safe_load(done.output)["services"][of]
    return str(service["image"])


@pytest.mark.parametrize(
    ("locked", "arguments", "expected"),
    [
        ({IMAGE: DIGEST}, ["--profile", "spark"], f"{IMAGE}@{DIGEST}"),
        ({}, ["--profile", "spark"], IMAGE),
        ({"other/image:1": DIGEST}, ["--profile", "spark"], IMAGE),
        ({IMAGE: DIGEST}, ["--profile", "spark", "--image", f"x/y@{DIGEST}"], f"x/y@{DIGEST}"),
        (
            {"ghcr.io/aeon-7/vllm-spark-gemma4-nvfp4-awq:latest": DIGEST},
            ["--compat", "seed"],
            "ghcr.io/aeon-7/vllm-spark-gemma4-nvfp4-awq:latest",
        ),
    ],
)
def test_image_gets_locked_digest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    locked: dict[str, str],
    arguments: list[str],
    expected: str,
) -> None:
    (tmp_path / "deckard.lock").write_text(json.dumps({"images": locked}))
    monkeypatch.chdir(tmp_path)
    assert image(*arguments) == expected


@pytest.mark.parametrize(
    ("locked", "setting", "expected"),
    [
        ({GATEWAY: DIGEST}, "", f"{GATEWAY}@{DIGEST}"),
        ({IMAGE: DIGEST}, "", GATEWAY),
        ({"mirror/nginx:1": DIGEST}, "mirror/nginx:1", f"mirror/nginx:1@{DIGEST}"),
    ],
)
def test_gateway_image_gets_locked_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: dict[str, str], setting: str, expected: str
) -> None:
    (tmp_path / "deckard.lock").write_text(json.dumps({"images": locked}))
    monkeypatch.chdir(tmp_path)
    more = ["--set", f"gateway_image={setting}"] if setting else []
    assert image("--profile", "spark", *more, of="gateway") == expected


def test_image_without_lock_keeps_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert image("--profile", "spark") == IMAGE
