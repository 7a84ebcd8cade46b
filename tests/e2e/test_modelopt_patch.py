"""NVFP4_AWQ and NVFP4_SVD in vLLM's own layers and engine, against float64 arithmetic and against the release."""

import json
import math
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.patching import plugin
from deckard_deploy.rehearsal import assistant, gemma4
from deckard_deploy.rehearsal.script import ANSWER_TEXT, PLAIN_TEXT, THOUGHT_TEXT
from tests.e2e import patched

pytestmark = pytest.mark.vllm
ALGORITHMS = ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD")
LAYERS = ("qkv", "gate_up", "row")
# Rounding the output to bfloat16 alone is 2^-9 of each value at most; the low-rank branch rounds once more, and two
# ranks round their sums.
ROUNDING = {"0.19.1": 0.004, "0.32.0": 0.006}  # 0.32's emulation also multiplies in bfloat16


@dataclass(frozen=True)
class Engine:
    """A real vLLM, and what puts the formats into it when it is first on PYTHONPATH."""

    version: str
    python: Path
    ours: Path


@pytest.fixture(scope="module", params=["0.19.1", "0.32.0"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("formats")
    if request.param == "0.19.1":
        python = request.getfixturevalue("engine_python")
        return Engine(request.param, python, patched.make_overlay(python, folder))
    python = request.getfixturevalue("new_engine_python")
    return Engine(request.param, python, plugin.build("nvfp4-awq", folder / plugin.WHEEL))


@pytest.fixture(scope="module")
def layers(engine: Engine) -> dict[str, Any]:
    found = patched.run(engine.python, "modelopt_layers.py", [], engine.ours)
    assert found["module"].startswith(str(engine.ours))
    return found


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tiny")
    return [
        str(gemma4.write(folder / name, quantization=name)) for name in ("nvfp4", "nvfp4_awq", "nvfp4_svd")
    ]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_layer_output_matches_format(engine, layers, algorithm, layer):
    found = layers[f"{algorithm}/{layer}"]
    assert found["off"] < ROUNDING[engine.version]
    assert math.isclose(found["true"], found["format"], rel_tol=0.01)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
def test_kernel_may_delete_all_parameters(engine, layers, algorithm, layer):
    """As Humming does on compute capability 9.0; the engine died of it at its first pass."""
    if engine.version == "0.32.0":
        assert layers[f"parameters replaced/{algorithm}/{layer}"]["off"] < ROUNDING[engine.version]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_ranks_match_one(engine, layers, algorithm, layer):
    assert layers[f"tp2/{algorithm}/{layer}"]["off"] < ROUNDING[engine.version]


def test_scales_of_ones_are_dropped(engine, layers):
    assert layers["folded"]["dropped"] is True
    assert layers["folded"]["off"] < ROUNDING[engine.version]


@pytest.mark.parametrize("case", ["nan/intact", "nan/lost"])
def test_nan_scales_are_repaired_from_codes(engine, layers, case):
    assert layers[case]["off"] < ROUNDING[engine.version]


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
@pytest.mark.parametrize("layer", LAYERS)
def test_missing_pre_quant_scale_is_noticed(layers, algorithm, layer):
    assert layers[f"control/no pre_quant_scale/{algorithm}/{layer}"]["off"] > 0.5


def test_missing_sharding_is_noticed(layers):
    assert layers["control/unsharded/row"]["off"] > 0.5


def test_unrepaired_nan_is_noticed(engine, layers):
    left_in = layers["control/nan left in"]
    if engine.version == "0.19.1":
        assert left_in["off"] > 0.5
    else:
        assert "was never loaded (still NaN)" in left_in["refused"]


def test_small_marlin_scale_keeps_largest(engine, layers):
    """0.32 drops it by itself."""
    assert layers["marlin scale"]["off"] == 0
    assert (layers["control/marlin scale"]["off"] > 0.1) is (engine.version == "0.19.1")


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unequal", "ValueError: pre_quant_scale differs between projections that vLLM fuses"),
        ("partly scaled", "1 of 2 fused projections have a pre_quant_scale"),
        ("all NaN", r"every FP8 block scale is NaN|was never loaded \(still NaN\)"),
        ("no residual", "no low-rank residual was loaded"),
        ("experts", "NVFP4_AWQ is supported on linear layers only"),
        ("mixed", r"MIXED_PRECISION with NVFP4_AWQ \(model.layers.0.mlp.down_proj\) is not supported"),
    ],
)
def test_unservable_layer_is_refused(layers, case, words):
    assert re.search(words, layers[case])


def text_only(checkpoint: Path, folder: Path) -> Path:
    """The same weights as Gemma4ForCausalLM, which takes no images."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in ("config.json", "processor_config.json"):
            (folder / file.name).symlink_to(file)
    config = json.loads((checkpoint / "config.json").read_text())
    text = {**config["text_config"], "architectures": ["Gemma4ForCausalLM"], "dtype": config["dtype"]}
    (folder / "config.json").write_text(json.dumps(text))
    return folder


THINKING = f"<|channel>thought\n{THOUGHT_TEXT}<channel|>{ANSWER_TEXT}"


def test_engine_serves_every_format(engine, checkpoints, tmp_path):
    plain, awq, svd = checkpoints
    more = []
    if engine.version == "0.32.0":  # 0.19.1 drafts on no CPU
        good = assistant.write(tmp_path / "good", kind="good")
        text = text_only(gemma4.write(tmp_path / "tiny"), tmp_path / "text")
        random = assistant.write(tmp_path / "random", kind="random")
        more = [f"@{awq}+{good}", f"{awq}+{random}", str(text), f"{text}+{good}"]
    found = patched.run(engine.python, "tiny_engine.py", [plain, f"@{awq}", svd, *more], engine.ours)
    assert found.pop("module").startswith(str(engine.ours))
    assert len(found) == 3 + len(more)
    for answers in found.values():
        assert (answers["plain"], answers["thinking"]) == (PLAIN_TEXT, THINKING)
    assert found["nvfp4_awq"]["image"] == PLAIN_TEXT
    # It was looked at: an image is up to 280 tokens of the prompt.
    assert found["nvfp4_awq"]["image_tokens"] > 200
    if more:
        seen = [
            found[name][key] for name in ("nvfp4_awq", "nvfp4_awq+good") for key in ("image", "image_tokens")
        ]
        assert seen[:2] == seen[2:]
        assert min(found[name]["acceptance"] for name in ("nvfp4_awq+good", "text+good")) >= 0.85
        assert found["nvfp4_awq+random"]["acceptance"] <= 0.03


def test_unpatched_release_refuses_formats_on_cpu(engine, checkpoints):
    found = patched.run(engine.python, "tiny_engine.py", checkpoints, None)
    kernels = {"0.19.1": "No NVFP4 GEMM backend selected", "0.32.0": "Failed to find a kernel"}
    assert kernels[engine.version] in found["nvfp4"]["error"]
    for name in ("nvfp4_awq", "nvfp4_svd"):
        assert "ModelOpt currently only supports" in found[name]["error"]


def test_plugin_refuses_other_vllm(engine_python, new_engine_python, tmp_path):
    wheel = plugin.build("nvfp4-awq", tmp_path / plugin.WHEEL)
    code = "from vllm.plugins import load_general_plugins; load_general_plugins()"
    for python, refused in ((engine_python, True), (new_engine_python, False)):
        argv = [str(python), "-c", code]
        done = subprocess.run(
            argv, env=patched.environment(wheel), capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) is refused, done.stderr
        assert ("deckard_nvfp4_awq is for vLLM 0.32 and 0.33" in done.stderr) is refused
