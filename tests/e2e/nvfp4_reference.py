"""NVFP4 checkpoints of one linear layer as ModelOpt packs them, and what they compute, in float64."""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

from dataclasses import dataclass

import torch

Tensors = dict[str, torch.Tensor]
GRID = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)
HIDDEN, HEADS, KV_HEADS, HEAD, TOKENS, GROUP = 256, 4, 2, 64, 24, 16
SHARDS = {"qkv": ("q", "k", "v"), "gate_up": (0, 1), "row": (None,)}
WIDTHS = {"qkv": (HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD), "gate_up": (384, 384), "row": (320,)}


@dataclass(frozen=True)
class Linear:
    """One checkpoint of a (fused) linear: a dict per projection, the true weight, the input."""

    kind: str
    algo: str
    shards: list[Tensors]
    weight: torch.Tensor
    x: torch.Tensor


def codes_of(values: torch.Tensor) -> torch.Tensor:
    magnitude = (values.abs().unsqueeze(-1) - GRID).abs().argmin(-1)
    return magnitude + 8 * (values < 0)


def values_of(codes: torch.Tensor) -> torch.Tensor:
    return GRID[codes % 8] * torch.where(codes >= 8, -1.0, 1.0).double()


def scales_of(blocks: torch.Tensor, global_scale: torch.Tensor) -> torch.Tensor:
    return (blocks.abs().amax(-1) / 6 / global_scale).clamp(max=448).float().to(torch.float8_e4m3fn)


def quantize(weight: torch.Tensor, global_scale: torch.Tensor) -> Tensors:
    blocks = weight.unflatten(-1, (-1, GROUP))
    scale = scales_of(blocks, global_scale)
    codes = codes_of(blocks / (scale.double() * global_scale).clamp(min=1e-30).unsqueeze(-1)).flatten(-2)
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8)
    return {"weight": packed, "weight_scale": scale, "weight_scale_2": global_scale.float()}


def dequantize(tensors: Tensors) -> torch.Tensor:
    packed = tensors["weight"].long()
    codes = torch.stack((packed & 15, packed >> 4), -1).flatten(-2)
    scale = tensors["weight_scale"].double() * tensors["weight_scale_2"].double()
    return (values_of(codes).unflatten(-1, (-1, GROUP)) * scale.unsqueeze(-1)).flatten(-2)


def checkpoint(kind: str, algo: str, *, scaled: bool = True) -> Linear:
    """Random projections of one input, packed as ModelOpt packs them: one pre_quant_scale, one weight_scale_2."""
    torch.manual_seed(sum(map(ord, kind + algo)))
    weight = torch.randn(sum(WIDTHS[kind]), HIDDEN, dtype=torch.float64) * 0.05
    x = torch.randn(TOKENS, HIDDEN).to(torch.bfloat16)
    shared: Tensors = {}
    rest, residual = weight, torch.zeros_like(weight)
    if algo != "NVFP4" and scaled:
        shared["pre_quant_scale"] = torch.exp(torch.randn(HIDDEN) * 0.7).to(torch.bfloat16)
        rest = weight / shared["pre_quant_scale"].double()
    scaled_x = x * shared["pre_quant_scale"] if shared else x
    if algo == "NVFP4_SVD":
        u, s, v = torch.linalg.svd(rest)
        lora_b = (u[:, :32] * s[:32]).to(torch.bfloat16)
        shared["weight_quantizer._svdquant_lora_a"] = v[:32].to(torch.bfloat16)
        residual = lora_b.double() @ shared["weight_quantizer._svdquant_lora_a"].double()
    global_scale = (rest - residual).abs().max() / (6 * 448)
    # A little above the maximum, so that no bfloat16 input lies exactly between two FP4 values, where float32 and
    # float64 may round apart.
    shared["input_scale"] = (scaled_x.abs().max().float() * 1.0137 / (6 * 448)).reshape(())
    shards = []
    for part, begin in zip((rest - residual).split(WIDTHS[kind]), _offsets(WIDTHS[kind]), strict=True):
        tensors = {**shared, **quantize(part, global_scale)}
        if algo == "NVFP4_SVD":
            tensors["weight_quantizer._svdquant_lora_b"] = lora_b[begin : begin + len(part)].contiguous()
        shards.append(tensors)
    return Linear(kind, algo, shards, weight, x)


def _offsets(widths: tuple[int, ...]) -> list[int]:
    return [sum(widths[:index]) for index in range(len(widths))]


def reference(linear: Linear) -> torch.Tensor:
    """The layer's output in float64: both operands quantized to NVFP4, then multiplied exactly."""
    first = linear.shards[0]
    x = linear.x * first["pre_quant_scale"] if "pre_quant_scale" in first else linear.x
    x = x.double()
    inverse = (1.0 / first["input_scale"]).double()
    blocks = x.unflatten(-1, (-1, GROUP)) * inverse
    scale = scales_of(blocks, torch.tensor(1.0)).double().unsqueeze(-1)
    quantized = (values_of(codes_of(blocks / scale.clamp(min=2**-9))) * scale).flatten(-2) / inverse
    out = quantized @ torch.cat([dequantize(tensors) for tensors in linear.shards]).T
    if "weight_quantizer._svdquant_lora_a" in first:
        low_rank = x @ first["weight_quantizer._svdquant_lora_a"].double().T
        lora_b = torch.cat([tensors["weight_quantizer._svdquant_lora_b"] for tensors in linear.shards])
        out = out + low_rank @ lora_b.double().T
    return out
