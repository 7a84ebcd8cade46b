"""How fast decoding can be, and what a drafter changes: bytes read in a step against the memory's bandwidth.

One step of decoding reads every weight of the text tower and the KV cache of every sequence once; on one token per
sequence there is little else to do. So bandwidth over bytes is a ceiling, and the share of it that is reached has to
be measured. Speculative decoding after Leviathan et al., "Fast Inference from Transformers via Speculative Decoding".
"""

from collections.abc import Iterator
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Architecture, Hardware, Measured, ModelSpec
from deckard_deploy.planning.memory.settings import CacheSettings

# ModelOpt 0.42.0: 4 bits a parameter and a byte of scale for 16 (NVFP4 group_size 16); SVDQuant adds two matrices of
# rank 32 to a linear, in BF16 (NVFP4_SVDQUANT_DEFAULT_CFG).
NVFP4_BYTES = 0.5625
SVD_RANK = 32
MOST_DRAFTED = 16  # tokens; nobody drafts more


class Roofline(NamedTuple):
    """weights: bytes of one step. bandwidth: bytes per second. ranks: GPUs that share both (communication left out)."""

    weights: int
    bandwidth: float
    ranks: int
    architecture: Architecture
    element_bytes: int
    efficiency: Measured | None

    def step_bytes(self, sequences: int, context: int) -> int:
        """Bytes that one step reads over all GPUs."""
        return self.weights + sequences * kv_read(self.architecture, self.element_bytes, context)

    def tokens_per_s(self, sequences: int, context: int) -> float:
        """The ceiling of all sequences together."""
        return sequences * self.bandwidth * self.ranks / self.step_bytes(sequences, context)


class Drafting(NamedTuple):
    """A drafter that proposes `tokens` tokens a step; `cost`: its step in steps of the target."""

    tokens: int
    cost: float

    def speedup(self, acceptance: float, tokens: int | None = None) -> float:
        """Tokens per second, relative to no drafter. acceptance: of one token, 0 to 1; verifying is taken as free."""
        drafted = self.tokens if tokens is None else tokens
        return accepted(acceptance, drafted) / (1 + self.cost * drafted)

    def break_even(self, tokens: int | None = None) -> float | None:
        """The acceptance below which the drafter is slower than none; None when no acceptance is enough."""
        low, high = 0.0, 1.0
        if self.speedup(1.0, tokens) <= 1:
            return None
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (low, middle) if self.speedup(middle, tokens) > 1 else (middle, high)
        return high

    def share(self, acceptance: float) -> float:
        """Accepted tokens of all drafted ones, as the engine counts them; each is only asked for after the last."""
        return (accepted(acceptance, self.tokens) - 1) / self.tokens

    def best_tokens(self, acceptance: float) -> int:
        """How many tokens to propose; 0: none."""
        return max(range(MOST_DRAFTED + 1), key=lambda tokens: (self.speedup(acceptance, tokens), -tokens))

    def implied_acceptance(self, speedup: float) -> float:
        """The acceptance at which the speed-up would be as measured, if drafting cost no more than its bytes."""
        low, high = 0.0, 1.0
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (low, middle) if self.speedup(middle) > speedup else (middle, high)
        return high


def accepted(acceptance: float, tokens: int) -> float:
    """Tokens that a step yields on average: 1 + a + a^2 + ... + a^k."""
    return sum(acceptance**power for power in range(tokens + 1))


def roofline_of(resolved: Resolved, settings: CacheSettings) -> Roofline | None:
    """The roofline of the target; None where the bandwidth is not known."""
    hardware: Hardware = resolved.profile.hardware
    if hardware.bandwidth_gb_s is None:
        return None
    return Roofline(
        weights=weight_read(resolved.model),
        bandwidth=hardware.bandwidth_gb_s * 1e9,
        ranks=settings.tensor_parallel,
        architecture=resolved.model.architecture,
        element_bytes=settings.element_bytes,
        efficiency=hardware.decode_efficiency,
    )


def drafting_of(resolved: Resolved) -> Drafting | None:
    """What the chosen drafter costs: its weights against the target's; both read theirs once a pass."""
    return drafting(resolved.model, resolved.drafter) if resolved.drafter else None


def drafting(target: ModelSpec, drafter: ModelSpec) -> Drafting | None:
    """The same, of two models; None when nobody says how the drafter drafts."""
    if drafter.speculative is None:
        return None
    method, tokens = drafter.speculative.method, drafter.speculative.num_speculative_tokens
    # A drafter of which the catalog has no layers is read as a whole: its head is its embedding, as in the target.
    read = weight_read(drafter) if drafter.architecture.layers else int(drafter.size_gb * 1e9)
    # A block in one pass; the others a pass for each token.
    passes = 1 / tokens if method == "dflash" else 1.0
    return Drafting(tokens=tokens, cost=passes * read / weight_read(target))


def weight_read(model: ModelSpec) -> int:
    """Bytes of weights that one step reads: all linears and the head.

    Not the embedding's rows, nor the vision tower. The head is the embedding (tied), BF16 in every quantization here.
    """
    shape = model.architecture
    linears = list(_linears(shape))
    parameters = sum(inputs * outputs for inputs, outputs in linears)
    head = shape.vocabulary_size * shape.hidden_size * 2
    if model.quantization == "none":
        return parameters * 2 + head
    residual = sum(map(sum, linears)) * SVD_RANK * 2 if model.quantization == "nvfp4_svd" else 0
    return int(parameters * NVFP4_BYTES) + residual + head


def kv_read(shape: Architecture, element_bytes: int, context: int) -> int:
    """Bytes of keys and values that one sequence of `context` tokens reads in a step.

    A layer that shares another's cache reads it again.
    """
    full_layers = shape.layers - shape.sliding_layers
    full = full_layers * shape.global_kv_heads * shape.global_head_dim * context
    sliding = shape.sliding_layers * shape.kv_heads * shape.head_dim * min(context, shape.sliding_window)
    return 2 * element_bytes * (full + sliding)


def _linears(shape: Architecture) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of every linear of the text tower (models/gemma4.py of vLLM 0.19.1).

    With k_eq_v vLLM copies a full layer's keys' weights into the values' place, and reads both.
    """
    hidden = shape.hidden_size
    kinds = (
        (shape.sliding_layers, shape.kv_heads, shape.head_dim),
        (shape.layers - shape.sliding_layers, shape.global_kv_heads, shape.global_head_dim),
    )
    for layers, kv_heads, head_dim in kinds:
        attention = shape.attention_heads * head_dim
        for _ in range(layers):
            yield from ((hidden, attention), (hidden, kv_heads * head_dim), (hidden, kv_heads * head_dim))
            yield from ((attention, hidden), *[(hidden, shape.intermediate_size)] * 3)
            if shape.per_layer_input_size:
                yield from [(hidden, shape.per_layer_input_size)] * 2
    if shape.per_layer_input_size:
        yield (hidden, shape.layers * shape.per_layer_input_size)
