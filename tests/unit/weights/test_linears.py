"""Packed linears of a checkpoint, and the fault of each."""

import pytest

from deckard_deploy.weights.linears import orphan_scales, packed_linears
from deckard_deploy.weights.safetensors_header import Tensor

NAME = "layers.0.self_attn.o_proj"
DOWN, UP = (f"{NAME}.weight_quantizer._svdquant_lora_{side}" for side in "ab")


def tensor(dtype: str, *shape: int) -> Tensor:
    return Tensor(dtype=dtype, shape=shape, begin=0, end=0)


def linear(**changes: Tensor | None) -> dict[str, Tensor]:
    """The tensors of a linear of 8 outputs and 32 inputs; None removes one."""
    tensors = {
        f"{NAME}.weight": tensor("U8", 8, 16),
        f"{NAME}.weight_scale": tensor("F8_E4M3", 8, 2),
        f"{NAME}.weight_scale_2": tensor("F32"),
        f"{NAME}.input_scale": tensor("F32", 1),
    }
    for name, value in changes.items():
        tensors.pop(f"{NAME}.{name}", None)
        if value is not None:
            tensors[f"{NAME}.{name}"] = value
    return tensors


def test_sound_linear_has_shape_and_no_fault():
    (found,) = packed_linears(linear(), "NVFP4")
    assert (found.name, found.shape, found.smoothed, found.fault) == (NAME, (8, 32), False, "")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"weight": tensor("U8", 8)}, "weight has shape [8], not two dimensions"),
        ({"weight": tensor("U8", 8, 12)}, "24 inputs are not a multiple of 16"),
        ({"weight_scale": None}, "weight_scale is missing"),
        ({"weight_scale": tensor("F8_E4M3", 8, 3)}, "weight_scale is F8_E4M3 [8, 3], not F8_E4M3 [8, 2]"),
        ({"weight_scale_2": tensor("BF16")}, "weight_scale_2 is BF16 [], not F32 []"),
        ({"pre_quant_scale": tensor("BF16", 31)}, "pre_quant_scale has shape [31], not [32]"),
    ],
)
def test_fault_is_named(changes: dict[str, Tensor], fault: str):
    (found,) = packed_linears(linear(**changes), "NVFP4")
    assert found.fault == fault


@pytest.mark.parametrize(
    ("algorithm", "missing"), [("NVFP4", False), ("NVFP4_AWQ", True), ("NVFP4_SVD", True)]
)
def test_smoothing_is_required_by_algorithm(algorithm: str, *, missing: bool):
    (found,) = packed_linears(linear(), algorithm)
    assert (found.fault == "pre_quant_scale is missing") is missing


def test_awq_folds_smoothing_behind_a_norm():
    tensors = {name.replace("o_proj", "q_proj"): each for name, each in linear().items()}
    (found,) = packed_linears(tensors, "NVFP4_AWQ")
    assert found.fault == ""


@pytest.mark.parametrize(
    ("down", "up", "fault"),
    [
        ((4, 32), (8, 4), ""),
        ((4, 32), (8, 5), "the low-rank branch [8, 5] x [4, 32] does not fit [8, 32]"),
        ((4, 32), (7, 4), "the low-rank branch [7, 4] x [4, 32] does not fit [8, 32]"),
        ((4, 31), (8, 4), "the low-rank branch [8, 4] x [4, 31] does not fit [8, 32]"),
    ],
)
def test_low_rank_branch_must_fit(down: tuple[int, ...], up: tuple[int, ...], fault: str):
    tensors = linear(pre_quant_scale=tensor("BF16", 32)) | {
        DOWN: tensor("BF16", *down),
        UP: tensor("BF16", *up),
    }
    (found,) = packed_linears(tensors, "NVFP4_SVD")
    assert found.fault == fault


def test_svd_without_low_rank_branch_is_a_fault():
    (found,) = packed_linears(linear(pre_quant_scale=tensor("BF16", 32)), "NVFP4_SVD")
    assert found.fault == "the low-rank branch is missing"


def test_scale_without_packed_weight_is_an_orphan():
    tensors = linear(weight=tensor("BF16", 8, 32)) | {"norm.weight": tensor("BF16", 8)}
    assert orphan_scales(tensors) == [
        f"{NAME}.{each}" for each in ("input_scale", "weight_scale", "weight_scale_2")
    ]
    assert orphan_scales(linear()) == []
