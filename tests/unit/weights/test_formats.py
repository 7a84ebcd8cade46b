"""Names of quantization formats, as config.json and hf_quant_config.json have them."""

from typing import Any

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.weights.formats import format_of, linear_faults, loaded_by
from deckard_deploy.weights.safetensors_header import Tensor

ALL = ["vLLM 0.19.1", "vLLM 0.32.0", "vLLM 0.33.0"]


@pytest.mark.parametrize(
    ("quantization", "text", "releases"),
    [
        ({}, "none", ALL),
        ({"quant_algo": "NVFP4", "quant_method": "modelopt"}, "NVFP4", ALL),
        ({"quant_algo": "NVFP4_AWQ"}, "NVFP4_AWQ", ALL),
        ({"quant_algo": "W4A16_NVFP4"}, "W4A16_NVFP4", ALL[1:]),
        ({"quant_algo": "W4A8_AWQ"}, "W4A8_AWQ", []),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", ALL),
        ({"quant_method": "awq", "w_bit": 4}, "awq (4 bits)", ALL),
        ({"quant_method": "bitsandbytes"}, "bitsandbytes", []),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors (no format)", ALL),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "mixed-precision",
                "config_groups": {
                    "a": {"format": "nvfp4-pack-quantized"},
                    "b": {"format": "float-quantized"},
                },
            },
            "compressed-tensors (nvfp4-pack-quantized, float-quantized)",
            ALL,
        ),
        (
            {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "FP8"}, "b": 3}},
            "MIXED_PRECISION (1 FP8)",
            ALL,
        ),
        ({"quant_method": "\x1b[2J"}, "\\x1b[2J", []),
        ({"quant_algo": ["NVFP4"], "config_groups": 3, "quantized_layers": []}, "without a name", []),
    ],
)
def test_format_is_named(quantization: dict[str, Any], text: str, releases: list[str]):
    found = format_of(quantization)
    assert (found.text, loaded_by(found)) == (text, releases)


def test_every_release_of_the_catalog_is_known():
    versions = {library.engine(name).vllm_version for name in listing.names("engines")}
    assert {f"vLLM {version}" for version in versions} <= set(loaded_by(format_of({})))


def test_several_formats_of_groups_are_not_checked_by_linear():
    quantization = {
        "quant_method": "compressed-tensors",
        "config_groups": {"a": {"format": "nvfp4-pack-quantized"}, "b": {"format": "float-quantized"}},
    }
    assert list(linear_faults(format_of(quantization), quantization, {})) == []


def test_block_scale_of_fp8_may_be_inverse():
    quantization = {"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}
    tensors = {"a.weight": Tensor("F8_E4M3", (2, 2), 0, 4), "a.weight_scale_inv": Tensor("F32", (1,), 4, 8)}
    assert list(linear_faults(format_of(quantization), quantization, tensors)) == []
    del tensors["a.weight_scale_inv"]
    assert list(linear_faults(format_of(quantization), quantization, tensors)) == [
        "a: weight_scale is missing"
    ]
