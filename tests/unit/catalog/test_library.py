"""Every built-in file is valid and refers to existing entries."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.listing import Kind
from deckard_deploy.catalog.option_schema import option_schema
from deckard_deploy.catalog.resolution import RESERVED_OPTIONS, SECRET_VARIABLES, resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

PROFILES, MODELS, ENGINES = (listing.names(kind) for kind in ("profiles", "models", "engines"))
LOAD = {
    "profiles": library.profile,
    "models": library.model,
    "engines": library.engine,
    "compat": library.compatibility,
    "recipes": library.recipe,
}
KINDS: tuple[Kind, ...] = ("profiles", "models", "engines", "compat", "recipes")
FILES = [(kind, entry) for kind in KINDS for entry in listing.entries(kind)]


def test_catalog_has_promised_entries() -> None:
    promised = {"spark", "b200", "gb200", "b300", "rtx-pro-6000", "rtx-5090", "h200", "h100", "thor", "cpu"}
    assert promised <= set(PROFILES)
    assert {"deckard-31b", "deckard-31b-svdquant", "deckard-e4b", "tiny-gemma4"} <= set(MODELS)
    assert {"vllm-0.19.1", "aeon-awq", "vllm-0.19.1-cpu", "vllm-0.32.0", "vllm-0.32.0-cpu"} <= set(ENGINES)


@pytest.mark.parametrize(("kind", "entry"), FILES, ids=[f"{kind}/{entry.name}" for kind, entry in FILES])
def test_entry_is_valid_and_listed(kind: Kind, entry: listing.Entry) -> None:
    spec = LOAD[kind](entry.name)
    assert spec.name == entry.name  # type: ignore[attr-defined]
    assert spec.description == entry.description  # type: ignore[attr-defined]
    lines = library.source(kind, entry.name).splitlines()
    assert lines[1].startswith("description: ")
    assert len(entry.description) <= 110  # a listing shows it on one line
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(("kind", "entry"), FILES, ids=[f"{kind}/{entry.name}" for kind, entry in FILES])
def test_entry_reads_equal_with_plain_yaml(kind: Kind, entry: listing.Entry) -> None:
    text = library.source(kind, entry.name)
    plain: Any = yaml.safe_load(text)
    assert LOAD[kind](entry.name).model_dump(mode="json", exclude_unset=True) == plain


@pytest.mark.parametrize("name", PROFILES)
def test_profile_numbers_have_sources(name: str) -> None:
    text = library.source("profiles", name)
    for key in ("memory_gib", "bandwidth_gb_s", "startup_timeout_s", "max-num-seqs"):
        (at,) = (
            number for number, line in enumerate(text.splitlines()) if line.strip().startswith(f"{key}:")
        )
        above = "\n".join(text.splitlines()[max(0, at - 4) : at + 1])
        assert "#" in above, f"{name}: {key}"


@pytest.mark.parametrize("name", PROFILES)
def test_profile_resolves_with_its_defaults(name: str) -> None:
    profile = library.profile(name)
    resolved = resolve(Deployment(), profile=profile)
    schema = option_schema(resolved.engine.option_schema)
    assert set(resolved.serve) <= set(schema.options)
    assert not set(resolved.serve) & set(RESERVED_OPTIONS)
    assert set(resolved.environment) <= {*schema.environment, *resolved.engine.environment}
    assert not set(resolved.environment) & set(SECRET_VARIABLES)
    assert "trust-remote-code" not in resolved.serve
    assert resolved.publish.address == "127.0.0.1"
    assert resolved.container.network == "bridge"
    assert resolved.container.restart == "on-failure:2"


@pytest.mark.parametrize("name", MODELS)
def test_model_references_exist(name: str) -> None:
    model = library.model(name)
    assert set(model.served_by) <= set(ENGINES)
    for drafter in model.drafters:
        assert library.model(drafter).role == "drafter"
    assert (model.speculative is not None) == (model.role == "drafter")
    architecture = model.architecture
    if model.role == "target" or architecture.layers:
        assert architecture.sliding_layers < architecture.layers
        assert architecture.kv_shared_layers < architecture.layers
    assert (model.size_gb > 0) == (model.weights is not None)


@pytest.mark.parametrize("name", ENGINES)
def test_engine_fields_are_consistent(name: str) -> None:
    engine = library.engine(name)
    assert (engine.image is None) == (engine.runtime == "process")
    assert engine.dependency_lock is None or engine.runtime == "process"
    assert option_schema(engine.option_schema).vllm_version == engine.vllm_version
    if engine.dependency_lock:
        assert (catalog_dir().parent / "running" / "process" / "locks" / engine.dependency_lock).is_dir()


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("profiles", "sparc", "no profile named 'sparc'; did you mean 'spark'?"),
        ("models", "llama", "no model named 'llama'"),
        ("engines", "../profiles/spark", "no engine named '../profiles/spark'; known:"),
        ("compat", "sead", "no compatibility line named 'sead'; did you mean 'seed'?"),
    ],
)
def test_unknown_name_raises_one_line(kind: Kind, name: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        LOAD[kind](name)
    assert caught.value.message.startswith(message)


def test_profile_from_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(library.source("profiles", "spark").replace("name: spark", "name: mine"))
    assert library.profile_from_file(file).model_copy(update={"name": "spark"}) == library.profile("spark")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe", "not UTF-8 text (byte 0)"),
        (b"", ":1: 'name' is required (and 5 more)"),
        (b"name: x\nhardwear: {}\n", ":2: hardwear: unknown key; did you mean 'hardware'?"),
    ],
)
def test_invalid_profile_file_raises_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        library.profile_from_file(file)
    assert caught.value.message.startswith(str(file))
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_folder_as_profile_raises(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not a regular file"):
        library.profile_from_file(tmp_path)


def test_listing_imports_no_yaml_and_no_pydantic() -> None:
    code = (
        "import sys; from deckard_deploy.catalog import listing; listing.entries('profiles');"
        "print([name for name in ('yaml', 'pydantic', 'json') if name in sys.modules])"
    )
    # Without coverage, which imports json where it measures.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
