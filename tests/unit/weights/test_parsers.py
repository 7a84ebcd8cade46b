"""Fuzzing: any content of a file or of a hub's answer gives a value or a DeployError of one line."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deckard_deploy.errors import DeployError
from deckard_deploy.weights import hub, lockfile
from deckard_deploy.weights.checkpoint import INDEX, read_checkpoint
from deckard_deploy.weights.folder import PRIVATE_FOLDER, ModelFolder
from deckard_deploy.weights.inspection import inspect
from deckard_deploy.weights.manifest import RemoteFile, read_manifest
from deckard_deploy.weights.partial import Partial
from tests.support.hub_server import COMMIT, REPO, Answer, Hub, running

EXAMPLES = os.environ.get("DECKARD_FUZZ_EXAMPLES")  # for a long run; tests/campaigns/fuzz_weights.py says how
SLICE = settings(
    max_examples=int(EXAMPLES or 60),
    deadline=None,
    derandomize=EXAMPLES is None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SCALAR = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(
    [
        "text_config",
        "vision_config",
        "quantization_config",
        "layer_types",
        "num_hidden_layers",
        "head_dim",
        "vocab_size",
        "quantization",
        "quant_algo",
        "producer",
        "weight_map",
        "architectures",
        "model_type",
        "global_head_dim",
        "version",
        "models",
        "images",
        "patches",
        "files",
        "repo",
        "commit",
        "sha256",
        "path",
        "size",
        "rope_parameters",
        "num_attention_heads",
        "num_key_value_heads",
        "num_global_key_value_heads",
        "hidden_size",
        "ignore",
    ]
)
VALUE = st.recursive(
    SCALAR
    | st.sampled_from(
        ["sliding_attention", "full_attention", "NVFP4", "gemma4", "model.safetensors", "a" * 40]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)
JSON = st.dictionaries(KEYS, VALUE, max_size=6).map(lambda one: json.dumps(one).encode())
BYTES = JSON | VALUE.map(lambda one: json.dumps(one).encode()) | st.binary(max_size=60)
HEADER = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"1234"


@contextlib.contextmanager
def only_deploy_errors() -> Iterator[None]:
    try:
        yield
    except DeployError as error:
        if "\n" in error.message:
            raise AssertionError(error.message) from error


@SLICE
@given(config=BYTES, quantization=st.none() | BYTES, index=st.none() | BYTES)
def test_any_checkpoint_json_is_handled(
    tmp_path_factory: pytest.TempPathFactory, config, quantization, index
):
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    for name, content in (("config.json", config), ("hf_quant_config.json", quantization), (INDEX, index)):
        if content is not None:
            (folder / name).write_bytes(content)
    for read in (read_checkpoint, inspect):
        with only_deploy_errors():
            read(folder)


@SLICE
@given(content=BYTES)
def test_any_lock_manifest_or_record_is_handled(tmp_path: Path, content):
    path = tmp_path / "deckard.lock"
    path.write_bytes(content)
    with only_deploy_errors():
        lockfile.read(path)
    assert read_manifest(path) is None or json.loads(content)["commit"]
    model = ModelFolder(tmp_path)
    (tmp_path / PRIVATE_FOLDER).mkdir(exist_ok=True)
    (tmp_path / PRIVATE_FOLDER / "record.json").write_bytes(content)
    file = RemoteFile(path="x", size=1, sha256="0" * 64)
    assert model.changed([file]) == [file]


@SLICE
@given(
    journal=st.binary(max_size=600) | JSON.map(lambda one: one.ljust(512) + bytes(8)),
    data=st.binary(max_size=40),
)
def test_any_journal_is_handled(tmp_path: Path, journal, data):
    file = RemoteFile(path="x", size=40, sha256="0" * 64)
    (tmp_path / f"{file.digest}.journal").write_bytes(journal)
    (tmp_path / f"{file.digest}.part").write_bytes(data)
    partial = Partial(tmp_path, file, segment_bytes=64)
    try:
        assert 0 <= partial.done() <= file.size
    finally:
        partial.close()


class Answers:
    body: bytes = b""


@pytest.fixture(scope="module")
def odd_hub():
    """A hub that answers with Answers.body."""

    class Odd(Answer):
        def do_GET(self) -> None:  # noqa: N802  http.server's name
            self.reply(200, Answers.body, {"Content-Type": "application/json"})

    served = Hub({})
    served.server.RequestHandlerClass = type("Odd", (Odd,), {"hub": served})
    with running(served), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", served.url)
        yield served


SIBLING = st.fixed_dictionaries(
    {},
    optional={
        "rfilename": SCALAR | st.sampled_from(["a.json", "../x", "/etc/x", "a/b"]),
        "size": SCALAR,
        "blobId": SCALAR | st.just("b" * 40),
        "lfs": VALUE
        | st.fixed_dictionaries(
            {"sha256": SCALAR | st.just("c" * 64), "size": SCALAR, "pointerSize": SCALAR}
        ),
    },
)
LISTING = st.fixed_dictionaries(
    {"id": st.just(REPO) | SCALAR},
    optional={"sha": st.just(COMMIT) | SCALAR, "siblings": st.lists(SIBLING | SCALAR, max_size=3) | VALUE},
).map(lambda one: json.dumps(one).encode())


@pytest.mark.usefixtures("odd_hub")
@SLICE
@given(body=LISTING | BYTES)
@example(body=b"[" * 100_000)
@example(body=json.dumps({"id": REPO, "sha": COMMIT, "siblings": [], "cardData": 5}).encode())
def test_any_hub_answer_is_handled(body):
    Answers.body = body
    with only_deploy_errors():
        hub.connect().resolve(REPO, None, backoff_s=0)
