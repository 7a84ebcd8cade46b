from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from deckard_deploy.rehearsal.layers import all_tensors
from deckard_deploy.rehearsal.nvfp4 import pack, quantization_config, quantize

LAYER = "model.language_model.layers.5."
PACKED = {"weight", "weight_scale", "weight_scale_2", "input_scale"}
LORA = {"weight_quantizer._svdquant_lora_a", "weight_quantizer._svdquant_lora_b"}


def parts(tensors: dict[str, NDArray[Any]], linear: str) -> set[str]:
    return {name.removeprefix(linear + ".") for name in tensors if name.startswith(linear + ".")}


def test_pack_puts_even_column_in_low_nibble():
    codes = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
    weight = np.array([codes, [0.0] * 16], np.float32)
    packed, scales = pack(weight, np.float32(1 / 4))
    assert packed[0].tolist() == [0x10, 0x32, 0x54, 0x76, 0x90, 0xBA, 0xDC, 0xFE]
    assert packed[1].tolist() == [0] * 8
    assert scales.dtype == ml_dtypes.float8_e4m3fn
    assert scales.astype(float).ravel().tolist() == [4, 1]  # a block of zeros has the scale 1


def test_block_scale_stays_in_range_of_e4m3():
    weight = np.full((1, 16), 6 * 1000, np.float32)
    packed, scales = pack(weight, np.float32(1))
    assert scales.astype(float).tolist() == [[448]]
    assert set(packed.ravel().tolist()) == {0x77}


@pytest.mark.parametrize(
    ("layout", "o_proj", "q_proj"),
    [
        ("nvfp4", PACKED, PACKED),
        ("nvfp4_awq", PACKED | {"pre_quant_scale"}, PACKED),
        ("nvfp4_svd", PACKED | LORA | {"pre_quant_scale"}, PACKED | LORA | {"pre_quant_scale"}),
    ],
)
def test_layouts_have_the_tensors_of_modelopt(layout, o_proj, q_proj):
    tensors = quantize(all_tensors(), layout)
    assert parts(tensors, LAYER + "self_attn.o_proj") == parts(tensors, LAYER + "mlp.down_proj") == o_proj
    assert parts(tensors, LAYER + "self_attn.q_proj") == parts(tensors, LAYER + "mlp.gate_proj") == q_proj
    assert LAYER + "self_attn.v_proj.weight" not in tensors
    assert len([name for name in tensors if name.endswith(".weight_scale")]) == 41
    shapes = {name: tensors[f"{LAYER}mlp.down_proj.{name}"] for name in PACKED}
    assert {name: (tensor.dtype.name, tensor.shape) for name, tensor in shapes.items()} == {
        "weight": ("uint8", (256, 256)),
        "weight_scale": ("float8_e4m3fn", (256, 32)),
        "weight_scale_2": ("float32", ()),
        "input_scale": ("float32", ()),
    }
    assert tensors["lm_head.weight"].dtype == ml_dtypes.bfloat16


def test_fused_linears_share_scales():
    tensors = quantize(all_tensors(), "nvfp4_awq")
    prefix = "model.language_model.layers.0."
    for linears in (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("mlp.gate_proj", "mlp.up_proj"),
    ):
        for scale in ("weight_scale_2", "input_scale"):
            assert len({float(tensors[f"{prefix}{name}.{scale}"]) for name in linears}) == 1


def test_fused_linears_share_low_rank_factor_a():
    tensors = quantize(all_tensors(), "nvfp4_svd")
    prefix = "model.language_model.layers.0."
    for linears in (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("mlp.gate_proj", "mlp.up_proj"),
    ):
        inner = {tensors[f"{prefix}{name}.weight_quantizer._svdquant_lora_a"].tobytes() for name in linears}
        assert len(inner) == 1
    assert tensors[prefix + "mlp.down_proj.weight_quantizer._svdquant_lora_a"].shape == (32, 512)
    assert tensors[prefix + "mlp.down_proj.weight_quantizer._svdquant_lora_b"].shape == (256, 32)


def test_config_groups_exist_only_for_plain_nvfp4():
    details, config = quantization_config("nvfp4_awq")
    assert details["quantization"] == {
        "quant_algo": "NVFP4_AWQ",
        "kv_cache_quant_algo": None,
        "group_size": 16,
        "has_zero_point": False,
        "pre_quant_scale": True,
        "exclude_modules": ["lm_head", "model.embed_vision*", "model.vision_tower*"],
    }
    assert config.keys() == {"ignore", "quant_algo", "producer", "quant_method"}
    assert "config_groups" in quantization_config("nvfp4")[1]
    assert quantization_config("nvfp4_svd")[1]["quant_algo"] == "NVFP4_SVD"
