"""The memory and the disk space of a quantization, computed from the shapes of the checkpoint's tensors.

Weights and packed weights are exact. The rest is an estimate of what a step holds besides: nobody has measured it on a
model of 31 billion parameters.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import NamedTuple

from deckard_deploy.catalog.specs import RecipeSpec

_BF16, _FP32, _FP64 = 2, 4, 8
_PACKED = 0.5 + 1 / 16  # a code of 4 bits, and a scale of one byte for 16 of them
# Copies of the largest linear: during the search of AWQ the scaled, the quantized and the exact one, in 32 bits; during
# the decomposition (modelopt 0.47.0 torch/quantization/model_calib.py:1955: the weight, U and V in 64 bits).
_SEARCH, _DECOMPOSITION = 3 * _FP32, 3 * _FP64
# Logits of a text in BF16 and, for the soft cap, in 32 bits twice.
_LOGITS = _BF16 + 2 * _FP32

Shapes = Mapping[str, tuple[int, ...]]


class Needs(NamedTuple):
    """Bytes. weights: in BF16. working: the estimate of the rest. written: the size of the new checkpoint."""

    weights: int
    working: int
    written: int

    @property
    def memory(self) -> int:
        """The memory that the run needs on its device."""
        return self.weights + self.working


def quantized_linears(shapes: Shapes, recipe: RecipeSpec) -> list[str]:
    """Return the names of the weights that the recipe packs: linears of decoder layers that no pattern excludes."""
    names = []
    for name, shape in shapes.items():
        if len(shape) != 2 or ".layers." not in name or not name.endswith(".weight"):
            continue
        if not any(fnmatch(f"{name}_quantizer", pattern) for pattern in recipe.exclude):
            names.append(name)
    return names


def needs_of(shapes: Shapes, recipe: RecipeSpec, vocabulary: int) -> Needs:
    """Return the needs of a recipe on a checkpoint. vocabulary: its number of tokens."""
    weights = sum(math.prod(shape) for shape in shapes.values()) * _BF16
    linears = [shapes[name] for name in quantized_linears(shapes, recipe)]
    elements = sum(math.prod(shape) for shape in linears)
    packed = int(elements * _PACKED)
    low_rank = sum(sum(shape) for shape in linears) * (recipe.lowrank or 0) * _BF16
    largest = max((math.prod(shape) for shape in linears), default=0)
    copies = {"max": _FP32, "svdquant": _DECOMPOSITION}.get(recipe.method, _SEARCH)
    # A linear is packed before its BF16 weight is let go, so the export holds no more than one of both.
    working = recipe.sequence_length * vocabulary * _LOGITS + largest * copies
    return Needs(weights, working, weights - elements * _BF16 + packed + low_rank)
