"""Run a program of ModelOpt's environment with PyTorch in place of the CUDA kernel that simulates NVFP4.

    PYTHON tests/campaigns/fp4_on_cpu.py PROGRAM ARGUMENT ...

Stock ModelOpt searches (AWQ, SVDQuant) on a GPU alone: "amax must be a CUDA tensor" (0.47.0 tensor_quant.py:172). With
this replacement the search runs on a CPU, slowly. It shows that files are written and read by the same rules, not what
the real kernel finds.
"""

# mypy: ignore-errors

import runpy
import sys

import torch
from modelopt.torch.quantization import tensor_quant

VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def simulate(inputs, _block_size, amax, *_format):
    """Return the inputs rounded to NVFP4: scales of 16 in e4m3 below a scale of the tensor."""
    whole = (amax.float().amax() / (6 * 448)).clamp(min=1e-12)
    blocks = inputs.float().reshape(-1, 16)
    scale = (blocks.abs().amax(-1, keepdim=True) / 6 / whole).clamp(max=448).to(
        torch.float8_e4m3fn
    ).float() * whole
    nearest = torch.bucketize((blocks / scale.clamp(min=1e-12)).abs(), (VALUES[1:] + VALUES[:-1]) / 2)
    return (VALUES[nearest] * blocks.sign() * scale).reshape(inputs.shape).to(inputs.dtype)


tensor_quant.dynamic_block_quantize_op = tensor_quant._dynamic_block_quantize_impl = simulate
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
