"""The bill of materials is CycloneDX by its own schema, complete, and the same each time."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deckard_deploy.cli.main import cli
from deckard_deploy.patching import plugin

IMAGE, DIGEST = "vllm/vllm-openai:v0.19.1-cu130", "a" * 64
REPO = "AEON-7/Gemma-4-31B-it-DECKARD-HERETIC-Uncensored-NVFP4"
FILES = [
    {"path": "model.safetensors", "size": 5, "sha256": "b" * 64},
    {"path": "config.json", "size": 2, "git_blob": "c" * 40},
]
LOCK = {
    "models": {"deckard-31b": {"repo": REPO, "commit": "d" * 40, "files": FILES}},
    "images": {IMAGE: f"sha256:{DIGEST}"},
}


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "deckard.lock").write_text(json.dumps(LOCK))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "state"))
    return shown("--profile", "spark", "--engine", "vllm-0.19.1")


def shown(*arguments: str) -> str:
    return CliRunner().invoke(cli, ["sbom", *arguments], catch_exceptions=False).output


def mistakes(text: str) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def named(text: str) -> dict[str, dict[str, Any]]:
    return {component["bom-ref"]: component for component in json.loads(text)["components"]}


def test_document_is_valid_cyclonedx(text: str) -> None:
    assert mistakes(text) is None


def test_leftover_of_installation_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "broken-1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert shown("--profile", "spark", "--engine", "vllm-0.19.1") == text


def test_validator_sees_a_mistake(text: str) -> None:
    """The control of the test above."""
    assert mistakes(text.replace('"container"', '"contraption"')) is not None


def test_document_has_all_parts(text: str) -> None:
    found = named(text)
    assert found[f"image:{IMAGE}"]["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]
    assert {"patch:serving_chat", "patch:modelopt"} <= set(found)
    model = found["model:deckard-31b"]
    assert model["version"] == "d" * 40
    assert {file["name"] for file in model["components"]} == {"model.safetensors", "config.json"}
    assert {"click", "docker", "pydantic", "deckard-deploy"} <= {
        component["name"] for component in found.values()
    }


def test_document_has_plugin(text: str) -> None:
    assert "patch:nvfp4-awq" not in named(text)
    (hashed,) = named(shown("--profile", "spark", "--engine", "vllm-0.32.0"))["patch:nvfp4-awq"]["hashes"]
    assert hashed["content"] == plugin.wheel_sha256("nvfp4-awq")


def test_document_is_reproducible(text: str) -> None:
    assert shown("--profile", "spark", "--engine", "vllm-0.19.1") == text
