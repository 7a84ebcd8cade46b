"""NVFP4_AWQ and NVFP4_SVD in vLLM's own layers and engine, against float64 arithmetic and against the release."""

import math
import socket
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.weights import tiny_gemma4
from deckard_deploy.weights.tiny_script import ANSWER_TEXT, PLAIN_TEXT, THOUGHT_TEXT
from tests.e2e import patched

pytestmark = pytest.mark.vllm
ALGORITHMS = ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD")
LAYERS = ("qkv", "gate_up", "row")
# Rounding the output to bfloat16 alone is 2^-9 of each value at most; the low-rank branch rounds once more, and two
# ranks round their sums.
ROUNDING = 0.004


@pytest.fixture(scope="module")
def overlay(engine_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patched.make_overlay(engine_python, tmp_path_factory.mktemp("patched"))


@pytest.fixture(scope="module")
def layers(engine_python: Path, overlay: Path) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = patched.run(engine_python, "modelopt_layers.py", [str(port)], overlay)
    assert found["module"].startswith(str(overlay))
    return found


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tiny")
    return [str(tiny_gemma4.write(folder / name, quantization=name)) for name in ("nvfp4", "nvfp4_awq", "nvfp4_svd")]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_layer_computes_what_the_format_says(layers, algorithm, layer):
    found = layers[f"{algorithm}/{layer}"]
    assert found["off"] < ROUNDING
    assert math.isclose(found["true"], found["format"], rel_tol=0.01)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_ranks_compute_what_one_does(layers, algorithm, layer):
    assert layers[f"tp2/{algorithm}/{layer}"]["off"] < ROUNDING


def test_scales_that_are_all_ones_are_dropped(layers):
    assert layers["folded"]["dropped"] is True
    assert layers["folded"]["off"] < ROUNDING


@pytest.mark.parametrize("case", ["nan/intact", "nan/lost"])
def test_nan_scales_are_repaired_by_what_their_codes_tell(layers, case):
    assert layers[case]["off"] < ROUNDING


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:])
@pytest.mark.parametrize("layer", LAYERS)
def test_control_without_pre_quant_scale(layers, algorithm, layer):
    assert layers[f"control/no pre_quant_scale/{algorithm}/{layer}"]["off"] > 0.5


@pytest.mark.parametrize("case", ["control/unsharded/row", "control/nan left in"])
def test_control_of_sharding_and_of_nan(layers, case):
    assert layers[case]["off"] > 0.5


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unequal", "ValueError: pre_quant_scale differs between projections that vLLM fuses"),
        ("partly scaled", "1 of 2 fused projections have a pre_quant_scale"),
        ("all NaN", "every FP8 block scale is NaN"),
        ("no residual", "no low-rank residual was loaded"),
        ("experts", "NVFP4_AWQ is supported on linear layers only"),
        ("mixed", "MIXED_PRECISION with NVFP4_AWQ (model.layers.0.mlp.down_proj) is not supported"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(layers, case, words):
    assert words in layers[case]


def test_engine_loads_every_format_and_follows_the_script(engine_python, overlay, checkpoints):
    found = patched.run(engine_python, "tiny_engine.py", checkpoints, overlay)
    assert found["module"].startswith(str(overlay))
    for name in ("nvfp4", "nvfp4_awq", "nvfp4_svd"):
        assert found[name]["plain"] == PLAIN_TEXT
        assert found[name]["thinking"] == f"<|channel>thought\n{THOUGHT_TEXT}<channel|>{ANSWER_TEXT}"


def test_the_release_refuses_every_format_on_a_cpu(engine_python, checkpoints):
    found = patched.run(engine_python, "tiny_engine.py", checkpoints, None)
    assert "No NVFP4 GEMM backend selected" in found["nvfp4"]["error"]
    for name in ("nvfp4_awq", "nvfp4_svd"):
        assert "ModelOpt currently only supports" in found[name]["error"]
