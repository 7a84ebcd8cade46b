"""The tensors of NVFP4_AWQ and NVFP4_SVD that NVFP4 has not, as a FormatScheme of vLLM 0.32 and 0.33.

pre_quant_scale                     [in]        multiplies the input, absent = ones
weight_quantizer._svdquant_lora_a   [rank, in]  NVFP4_SVD: y = W4 (x s) + B (A (x s))
weight_quantizer._svdquant_lora_b   [out, rank]
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn import Module
from torch.nn.functional import linear
from vllm.model_executor.kernels.linear import _POSSIBLE_NVFP4_KERNELS, register_linear_kernel
from vllm.model_executor.kernels.linear.nvfp4.emulation import EmulationNvFp4LinearKernel
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.utils.humming.priority import prefers_humming
from vllm.model_executor.parameter import ChannelQuantScaleParameter, RowvLLMParameter
from vllm.model_executor.utils import set_weight_attrs
from vllm.platforms import PlatformEnum
from vllm.utils.import_utils import has_humming

ALGORITHMS = ("NVFP4_AWQ", "NVFP4_SVD")
_LOG = logging.getLogger("vllm.deckard_nvfp4_awq")


def add_formats() -> None:
    """Put both formats into modelopt.py's tables, and a kernel for NVFP4 into the CPU's, once."""
    if ALGORITHMS[0] in modelopt.LINEAR_ALGOS:
        return
    for algo in ALGORITHMS:
        modelopt.LINEAR_ALGOS[algo] = ("modelopt_fp4", "nvfp4_config")
        modelopt.QUANT_ALGOS.append(algo)
        modelopt.LINEAR_METHOD_BUILDERS[algo] = _builder(algo)
    config = modelopt.ModelOptNvFp4Config
    config.FusedMoEMethodCls = staticmethod(_refuse_experts(config.FusedMoEMethodCls))
    # For rehearsals: vLLM lists its emulation for GPUs only, though nothing in it needs one.
    if not _POSSIBLE_NVFP4_KERNELS.get(PlatformEnum.CPU):
        register_linear_kernel(EmulationNvFp4LinearKernel, PlatformEnum.CPU, "nvfp4")


def _builder(algo: str) -> Callable[..., Any]:
    scheme = NvFp4Svd() if algo == "NVFP4_SVD" else NvFp4Awq()

    def build(config: Any, prefix: str) -> Any:
        if config.quant_method != algo:  # the shared NVFP4 part of a mixed checkpoint
            raise ValueError(f"MIXED_PRECISION with {algo} ({prefix}) is not supported")
        spec, ctx, _ = modelopt.resolve("NVFP4", config, prefix)
        return modelopt.ModelOptLinearMethod(spec, ctx, scheme)

    return build


def _refuse_experts(original: Any) -> Callable[..., Any]:
    """Wrap the choice of a FusedMoE method: it cannot multiply an expert's input by its pre_quant_scale."""

    def choose(*, quant_config: Any, moe_config: Any) -> Any:
        if quant_config.quant_method in ALGORITHMS:
            raise ValueError(
                f"{quant_config.quant_method} is supported on linear layers only, and this model is a mixture of "
                "experts. Use an NVFP4 checkpoint, or one whose experts are excluded from quantization."
            )
        return original(quant_config=quant_config, moe_config=moe_config)

    return choose


class NvFp4Awq(modelopt.FormatScheme):
    """NVFP4 whose linears multiply their input by a vector."""

    def extra_weights(self, layer: Module, shapes: Any, ctx: Any, wl: Any) -> None:
        """Register the vector, sharded under row parallelism and copied whole everywhere else."""
        # A scale cannot be applied to a quantized input, which the layer before this one may otherwise
        # produce (model_executor/layers/fusion/quant_activation.py:67).
        layer.requires_unquantized_input = True
        scale = RowvLLMParameter(
            data=torch.ones(shapes.input_size_per_partition, dtype=shapes.params_dtype),
            input_dim=0,
            weight_loader=_fused_loader(wl, shapes.num_partitions, shared=True),
        )
        set_weight_attrs(scale, {"shards_loaded": 0, "tensor_name": "pre_quant_scale"})
        layer.register_parameter("pre_quant_scale", scale)

    def pre_process(self, layer: Module) -> None:
        """Take the scale; runs before vLLM looks for NaN and before a kernel swizzles the scales or repacks."""
        _register_humming()
        _repair_nan_scales(layer)
        scale = _take_fused(layer, layer, "pre_quant_scale")
        ones = scale is None or bool((scale == 1).all())
        layer.pre_quant_scale = None if ones else scale
        layer.requires_unquantized_input = not ones

    def apply(self, layer: Module, x: torch.Tensor, bias: Any, kernel_apply: Any) -> torch.Tensor:
        """Apply the kernel to the scaled input."""
        return kernel_apply(layer, _scaled(layer, x), bias)


class NvFp4Svd(NvFp4Awq):
    """NVFP4_AWQ plus a low-rank residual in full precision (SVDQuant)."""

    def extra_weights(self, layer: Module, shapes: Any, ctx: Any, wl: Any) -> None:
        """Register the residual too, under the checkpoint's names; its rank is known after loading."""
        super().extra_weights(layer, shapes, ctx, wl)
        fused, dtype = shapes.num_partitions, shapes.params_dtype
        lora_a = RowvLLMParameter(
            data=torch.empty(0, shapes.input_size_per_partition, dtype=dtype),
            input_dim=1,
            weight_loader=_fused_loader(wl, fused, shared=True, rank_dim=0),
        )
        lora_b = ChannelQuantScaleParameter(
            data=torch.empty(shapes.output_size_per_partition, 0, dtype=dtype),
            output_dim=0,
            weight_loader=_fused_loader(wl, fused, shared=False, rank_dim=1),
        )
        layer.weight_quantizer = Module()
        for name, lora in (("_svdquant_lora_a", lora_a), ("_svdquant_lora_b", lora_b)):
            set_weight_attrs(lora, {"shards_loaded": 0, "tensor_name": name})
            layer.weight_quantizer.register_parameter(name, lora)

    def pre_process(self, layer: Module) -> None:
        """Take the residual out of its loading parameters."""
        super().pre_process(layer)
        layer.requires_unquantized_input = True
        residual = layer.weight_quantizer
        del layer.weight_quantizer
        layer.svdquant_lora_a = _take_fused(layer, residual, "_svdquant_lora_a")
        layer.svdquant_lora_b = _take_fused(layer, residual, "_svdquant_lora_b")
        if layer.svdquant_lora_a is None or layer.svdquant_lora_b is None:
            raise ValueError(f"{layer.prefix}: no low-rank residual was loaded.")

    def apply(self, layer: Module, x: torch.Tensor, bias: Any, kernel_apply: Any) -> torch.Tensor:
        """Apply both branches to the scaled input."""
        x = _scaled(layer, x)
        low_rank = linear(linear(x, layer.svdquant_lora_a), layer.svdquant_lora_b)
        return kernel_apply(layer, x, bias) + low_rank


@cache
def _register_humming() -> None:
    """Register Humming's operators where vLLM prefers its kernels.

    The code that torch.compile has cached names them. Humming registers them at its first pass, so that vLLM 0.33.0
    cannot load the cached code before ("'_OpNamespace' 'humming' object has no attribute 'launch_kernel'",
    compilation/decorators.py:340), and compiles again: 35 of 92 s of a start on an H200.
    """
    if not (has_humming() and prefers_humming()):
        return
    from humming.ops.utils import init_humming_launcher

    init_humming_launcher()


def _scaled(layer: Module, x: torch.Tensor) -> torch.Tensor:
    return x if layer.pre_quant_scale is None else x * layer.pre_quant_scale


def _fused_loader(loader: Any, fused: int, *, shared: bool, rank_dim: int | None = None) -> Any:
    """Wrap the loader of a parameter that all shards of a fused linear fill.

    shared: q/k/v and gate/up read one input, so each must bring the same tensor; otherwise the last one
    silently wins. rank_dim: the dimension that only the checkpoint knows (SVDQuant's rank).
    """

    def load(param: Any, loaded: Any, *shard: Any, **named: Any) -> None:
        if rank_dim is not None and param.shape[rank_dim] == 0:
            shape = list(param.shape)
            shape[rank_dim] = loaded.shape[rank_dim]
            param.data = param.data.new_empty(shape)
        previous = param.data.clone() if shared and param.shards_loaded else None
        loader(param, loaded, *shard, **named)
        if previous is not None and not torch.equal(previous, param.data):
            raise ValueError(
                f"{param.tensor_name} differs between projections that vLLM fuses (q/k/v or gate/up): export the "
                "checkpoint again with ModelOpt's export_hf_checkpoint, which makes them equal."
            )
        # A tensor that is already fused on disk comes once, without a shard id.
        param.shards_loaded += 1 if shard or named else fused

    return load


def _take_fused(layer: Any, owner: Module, name: str) -> torch.Tensor | None:
    """Take a loaded parameter away from its owner. Return its tensor; None if the checkpoint has none.

    The tensor is no parameter any more: Humming's conversion deletes every parameter of the layer (vllm 0.32.0
    model_executor/layers/quantization/utils/humming/linear.py:147), and the engine would die at its first pass.
    Raises ValueError if only some of the fused projections had one.
    """
    param = getattr(owner, name)
    delattr(owner, name)
    if param.shards_loaded == 0:
        return None
    fused = len(layer.logical_widths)
    if param.shards_loaded != fused:
        raise ValueError(
            f"{layer.prefix}: {param.shards_loaded} of {fused} fused projections have a {param.tensor_name}."
        )
    return param.data


def _repair_nan_scales(layer: Any) -> None:
    """Replace FP8 NaN block scales (0x7F, 0xFF), depending on the block's codes.

    ModelOpt casts block_amax / (6 * weight_scale_2) to e4m3 without a clamp, and torch before 2.12 turns
    every value from 465 up into NaN (NVIDIA/Model-Optimizer issue 1633). Codes that were packed with the true
    scale are intact, and the nearest scale is 448. Codes that were packed by dividing by NaN are sixteen
    equal maxima without information: 448 would make sixteen outliers, zero loses the block. If every scale is
    NaN, none was loaded, which vLLM reports itself.
    """
    scale = layer.weight_scale.data.view(torch.uint8)
    nan = (scale & 0x7F) == 0x7F
    num_nan = int(nan.sum())
    if num_nan in (0, scale.numel()):
        return
    codes = layer.weight.data.view(*scale.shape, -1)[nan]
    lost = (codes == 0x77).all(dim=1) | (codes == 0xFF).all(dim=1)
    scale[nan] = torch.where(lost, 0, 0x7E).to(torch.uint8)
    _LOG.warning(
        "%s: %d of %d FP8 block scales are NaN; %d set to 448 (codes intact), %d set to 0 (codes lost)",
        layer.prefix,
        num_nan,
        scale.numel(),
        num_nan - int(lost.sum()),
        int(lost.sum()),
    )
