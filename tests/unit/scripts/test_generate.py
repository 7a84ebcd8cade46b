"""Generated files are as generated, and say what they are for."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.overrides import read_deployment, with_settings
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "deckard.example.yaml"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_check_names_a_stale_file_and_writes_nothing(generate: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    assert generate.stale({file: "new", tmp_path / "b.json": "x"}) == [file, tmp_path / "b.json"]
    assert generate.stale({file: "old"}) == []
    assert file.read_text() == "old"


def test_no_generated_file_is_stale() -> None:
    """In a process of its own: in this one, other tests have changed what the pages are made from."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate.py", "--check"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_example_has_every_key_and_resolves() -> None:
    deployment = with_settings(read_deployment(EXAMPLE), [])
    assert deployment.model_fields_set == set(Deployment.model_fields)
    assert deployment.profile is not None
    resolved = resolve(deployment, profile=library.profile(deployment.profile))
    assert "max-num-batched-tokens" not in resolved.serve
    assert EXAMPLE.read_text().startswith("# yaml-language-server: $schema=schemas/deckard.schema.json\n")
    assert (EXAMPLE.parent / "schemas" / "deckard.schema.json").is_file()


def mistakes(schema: str, data: Any) -> list[str]:
    validator = Draft202012Validator(
        json.loads((ROOT / "docs" / "schemas" / f"{schema}.schema.json").read_text())
    )
    return [error.message for error in validator.iter_errors(data)]


@pytest.mark.parametrize("kind", ["profile", "model", "engine"])
def test_an_editor_accepts_the_catalog(kind: str) -> None:
    folder = ROOT / "deckard_deploy" / "catalog" / f"{kind}s"
    files = sorted(folder.glob("*.yaml"))
    assert len(files) == len(listing.names(f"{kind}s"))  # type: ignore[arg-type]
    assert [mistakes(kind, yaml.safe_load(file.read_text())) for file in files] == [[] for _ in files]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
        ("serve", {"max-num-seqs": 0}),
        ("serve", {"max-num-seqz": 1}),
        ("serve", {"kv-cache-dtype": "fp4"}),
        ("serve", {"gpu-memory-utilization": 1.5}),
        ("publish", {"port": 0}),
        ("name", "A B"),
        ("profil", "spark"),
    ],
)
def test_an_editor_accepts_the_example_and_marks_mistakes_in_it(key: str | None, value: Any) -> None:
    data = yaml.safe_load(EXAMPLE.read_text())
    if key is not None:
        data[key] = value
    assert bool(mistakes("deckard", data)) == (key is not None)
