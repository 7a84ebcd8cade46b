"""The quantized lm_head: the method that vLLM's LogitsProcessor calls, and the moment at which it is put in place.

A tied lm_head is a layer of its own whose weight is the embedding's parameter (ParallelLMHead.tie_weights). After
loading it gets quantized weights of its own; the embedding keeps the table. Soft cap, gathering over ranks and the
padding of the vocabulary are the LogitsProcessor's, which sees logits as before. A CPU has no kernel for either format:
there the weights are rounded to the format and multiplied in the model's own type.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import logging
import os
from typing import Any

import torch
from torch.nn import Module, Parameter
from torch.nn.functional import linear
from vllm.config import set_current_vllm_config
from vllm.model_executor.kernels.linear import init_fp8_linear_kernel, init_nvfp4_linear_kernel
from vllm.model_executor.layers.linear import LinearMethodBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import ref_nvfp4_quant
from vllm.model_executor.layers.quantization.utils.quant_utils import (
    kFp8DynamicTokenSym,
    kFp8StaticChannelSym,
)
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
)
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.platforms import current_platform

FP4_MAX, FP8_MAX = 6.0, 448.0  # of E2M1 and E4M3
ROWS = 8192  # rounded at a time: the float32 copies of 8,192 rows of 5,376 need 0.2 GB each
# Relative error of the logits of random hidden states that no kernel may exceed. Seen: 0.026 of FP8 weights and 0.095
# of NVFP4 weights with a normal distribution; FP8 rounds the hidden states as well. A wrong layout gives about 1.
LIMITS = {"fp8": 0.08, "nvfp4": 0.2}
_LOG = logging.getLogger("vllm.deckard_lm_head")


def quantize_after_loading(form: str) -> None:
    """Give the lm_head of each target that vLLM creates a method that quantizes it after loading."""
    original = BaseModelLoader.create_model
    if hasattr(original, "quantizes_lm_head"):
        return

    def create_model(self: Any, vllm_config: Any, model_config: Any, *arguments: Any, **named: Any) -> Module:
        model = original(self, vllm_config, model_config, *arguments, **named)
        if (
            model_config.runner_type != "draft"
        ):  # config/speculative.py:1291 of 0.32.0; a drafter keeps its head
            head = find_plain_head(model)
            with set_current_vllm_config(vllm_config):  # which names the linear backend
                head.quant_method = METHODS[form](head, model_config.dtype)
        return model

    create_model.quantizes_lm_head = True
    BaseModelLoader.create_model = create_model


def find_plain_head(model: Module) -> ParallelLMHead:
    """Return the model's lm_head. Raises ValueError unless there is one, and it is not quantized."""
    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    if len(heads) != 1:
        raise ValueError(f"lm_head cannot be quantized: {type(model).__name__} has {len(heads)} of them here")
    method = heads[0].quant_method
    plain = isinstance(method, UnquantizedEmbeddingMethod | UnquantizedLinearMethod)
    if not plain:
        raise ValueError(f"lm_head is quantized already, by {type(method).__name__}")
    return heads[0]


class Rounded:
    """In the place of a kernel where there is none: the weights, rounded to the format."""

    def apply_weights(self, layer: Module, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Multiply in the model's own type."""
        return linear(x, layer.weight, bias)


class QuantizedHead(LinearMethodBase):
    """What both formats share."""

    def create_weights(self, *_: Any, **__: Any) -> None:
        """Raise: the unquantized method has created the weights that are loaded."""
        raise NotImplementedError

    def process_weights_after_loading(self, layer: Module) -> None:
        """Replace the loaded weights. Raises ValueError if the logits are then far from those before."""
        weight = layer.weight.data
        # As the online methods of vLLM leave them on a layer, for its kernels (online/fp8.py, create_weights).
        layer.logical_widths, layer.orig_dtype = layer.output_partition_sizes, weight.dtype
        layer.weight_block_size = None
        self.replace(layer, weight)
        kernel, off = type(self.kernel).__name__, self.error_of_logits(layer, weight)
        if not off < LIMITS[self.form]:
            raise ValueError(
                f"lm_head {self.form} by {kernel}: the logits are off by {off:.3f} of their norm"
            )
        # deckard-deploy reads this line: the head of this process is quantized.
        line = "deckard_lm_head quantized: form=%s kernel=%s off=%.4f pid=%d"
        _LOG.warning(line, self.form, kernel, off, os.getpid())

    def error_of_logits(self, layer: Module, weight: torch.Tensor) -> float:
        """Return the relative error of the logits of random hidden states, against the weights before."""
        drawn = torch.Generator(weight.device).manual_seed(0)
        hidden = torch.randn(16, weight.shape[1], generator=drawn, device=weight.device).to(weight.dtype)
        expected = linear(hidden, weight).float()
        found = self.apply(layer, hidden).float()
        return ((found - expected).norm() / expected.norm()).item()

    def apply(self, layer: Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits of this rank's part of the vocabulary."""
        return self.kernel.apply_weights(layer, x, bias)


class Fp8Head(QuantizedHead):
    """E4M3, a scale for each row of the weights and for each token's hidden state (W8A8)."""

    form = "fp8"

    def __init__(self, head: ParallelLMHead, dtype: torch.dtype) -> None:
        self.kernel = Rounded()
        if not current_platform.is_cpu():
            self.kernel = init_fp8_linear_kernel(
                activation_quant_key=kFp8DynamicTokenSym,
                weight_quant_key=kFp8StaticChannelSym,
                weight_shape=head.weight.shape,
                input_dtype=dtype,
                out_dtype=dtype,
                module_name=type(self).__name__,
            )

    def replace(self, layer: Module, weight: torch.Tensor) -> None:
        """Round the rows."""
        low, high = weight.aminmax(dim=1, keepdim=True)
        scale = (torch.maximum(-low, high).float() / FP8_MAX).clamp(min=1e-12)
        codes = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
        for start in range(0, len(weight), ROWS):
            rows = slice(start, start + ROWS)
            codes[rows] = (weight[rows].float() / scale[rows]).clamp(-FP8_MAX, FP8_MAX).to(codes.dtype)
        if isinstance(self.kernel, Rounded):
            layer.weight = parameter((codes.float() * scale).to(weight.dtype))
            return
        # Columns before rows, as each kernel of FP8 takes them (online/fp8.py of 0.32.0, Fp8PtpcOnlineLinearMethod).
        layer.weight, layer.weight_scale = parameter(codes.t()), parameter(scale)
        layer.input_scale = None
        self.kernel.process_weights_after_loading(layer)


class NvFp4Head(QuantizedHead):
    """E2M1, a scale in E4M3 for 16 values and one for all; the hidden states stay as they are (W4A16)."""

    form = "nvfp4"

    def __init__(self, _head: ParallelLMHead, _dtype: torch.dtype) -> None:
        self.kernel = Rounded() if current_platform.is_cpu() else init_nvfp4_linear_kernel(use_a16=True)

    def replace(self, layer: Module, weight: torch.Tensor) -> None:
        """Round and pack, in the layout of ModelOpt's checkpoints (low nibble first)."""
        low, high = weight.aminmax()
        scale_2 = (torch.maximum(-low, high).float() / (FP4_MAX * FP8_MAX)).clamp(min=1e-12)
        rounded = isinstance(self.kernel, Rounded)
        count, width = weight.shape
        packed = weight.new_empty(count, width // 2, dtype=torch.uint8)
        scales = weight.new_empty(count, width // 16, dtype=torch.float8_e4m3fn)
        exact = torch.empty_like(weight) if rounded else None
        for start in range(0, count, ROWS):
            rows = slice(start, start + ROWS)
            values, blocks = ref_nvfp4_quant(weight[rows], 1 / scale_2, 16)
            if rounded:
                exact[rows] = values * (blocks * scale_2).repeat_interleave(16, dim=1)
                continue
            codes = codes_of(values)
            packed[rows], scales[rows] = codes[:, ::2] | codes[:, 1::2] << 4, blocks.to(scales.dtype)
        if rounded:
            layer.weight = parameter(exact)
            return
        layer.weight, layer.weight_scale = parameter(packed), parameter(scales)
        layer.weight_global_scale = parameter(scale_2)
        self.kernel.process_weights_after_loading(layer)


def codes_of(values: torch.Tensor) -> torch.Tensor:
    """Return the codes of E2M1: 0, 0.5, 1, 1.5, 2, 3, 4 and 6, and 8 more for a negative value."""
    magnitudes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], device=values.device)
    codes = torch.bucketize(values.abs(), magnitudes).to(torch.uint8)
    return codes | (values < 0).to(torch.uint8) << 3


def parameter(tensor: torch.Tensor) -> Parameter:
    """Return a parameter that belongs to no loader."""
    return Parameter(tensor, requires_grad=False)


METHODS = {"fp8": Fp8Head, "nvfp4": NvFp4Head}
