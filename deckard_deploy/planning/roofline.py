"""The decode speed that memory bandwidth allows, and the gain from a drafter.

A decode step reads every weight of the text tower and the KV cache of every sequence once, and computes
little: one token per sequence. Bandwidth / bytes is therefore a ceiling; the reached share of it has to be
measured. Speculative decoding follows Leviathan et al., "Fast Inference from Transformers via Speculative
Decoding".
"""

from collections.abc import Iterator
from typing import NamedTuple

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import Architecture, Hardware, LmHead, Measured, ModelSpec
from deckard_deploy.planning.memory.parts import NVFP4_BYTES, copied_value_bytes, lm_head_bytes
from deckard_deploy.planning.memory.settings import CacheSettings

# SVDQuant adds two BF16 matrices of rank 32 to each linear (ModelOpt 0.42.0, NVFP4_SVDQUANT_DEFAULT_CFG).
SVD_RANK = 32
MAX_DRAFT_TOKENS = 16  # the limit of drafter_tokens (catalog/specs.py)
_PRECISION = 1e-6  # of an acceptance that bisection finds


class Roofline(NamedTuple):
    """The ceiling of decode speed.

    weights: bytes that each step reads. experts: bytes of all experts, of which a step reads those that its
    tokens are routed to. bandwidth: bytes per second. ranks: GPUs that share both, communication left out.
    """

    weights: int
    experts: int
    bandwidth: float
    ranks: int
    architecture: Architecture
    element_bytes: int
    efficiency: Measured | None

    def step_bytes(self, sequences: int, context: int) -> int:
        """Return the bytes that one step reads on all GPUs together."""
        experts = int(self.experts * used_experts(self.architecture, sequences))
        cache = sequences * kv_bytes_read(self.architecture, self.element_bytes, context)
        return self.weights + experts + cache

    def tokens_per_s(self, sequences: int, context: int) -> float:
        """Return the ceiling in tokens per second for all sequences together."""
        return sequences * self.bandwidth * self.ranks / self.step_bytes(sequences, context)


class DraftingEstimate(NamedTuple):
    """A drafter that proposes `tokens` tokens per step. cost: one drafter step, in steps of the target."""

    tokens: int
    cost: float

    def speedup(self, acceptance: float, tokens: int | None = None) -> float:
        """Return tokens per second relative to no drafter, if verification costs nothing.

        acceptance: probability of one token, 0 to 1. tokens: drafted per step; None: `self.tokens`.
        """
        drafted = self.tokens if tokens is None else tokens
        return tokens_per_step(acceptance, drafted) / (1 + self.cost * drafted)

    def break_even(self, tokens: int | None = None) -> float | None:
        """Return the acceptance below which the drafter slows decoding; None when no acceptance is enough."""
        if self.speedup(1.0, tokens) <= 1:
            return None
        return self._acceptance_for(1, tokens)

    def share(self, acceptance: float) -> float:
        """Return accepted / drafted tokens as the engine counts them: none after the first rejected one."""
        return (tokens_per_step(acceptance, self.tokens) - 1) / self.tokens

    def best_tokens(self, acceptance: float) -> int:
        """Return the fastest number of tokens to propose per step; 0: do not draft."""
        best = 0
        for tokens in range(1, MAX_DRAFT_TOKENS + 1):
            if self.speedup(acceptance, tokens) > self.speedup(acceptance, best):
                best = tokens
        return best

    def implied_acceptance(self, speedup: float) -> float:
        """Return the acceptance behind a measured speed-up, if drafting costs no more than its bytes."""
        return self._acceptance_for(speedup, None)

    def _acceptance_for(self, speedup: float, tokens: int | None) -> float:
        """Find by bisection the acceptance above which the speed-up exceeds `speedup`."""
        low, high = 0.0, 1.0
        while high - low > _PRECISION:
            middle = (low + high) / 2
            if self.speedup(middle, tokens) > speedup:
                high = middle
            else:
                low = middle
        return high


def tokens_per_step(acceptance: float, tokens: int) -> float:
    """Return the mean number of tokens that a step yields: 1 + a + a^2 + ... + a^k."""
    return sum(acceptance**power for power in range(tokens + 1))


def used_experts(shape: Architecture, tokens: int) -> float:
    """Return the expected share (0 to 1) of a layer's experts that `tokens` tokens use together.

    Each token uses experts_per_token different ones, here taken as equally likely: trained routers prefer some, so the
    true share is lower.
    """
    if not shape.experts:
        return 0.0
    unused_by_one = 1 - shape.experts_per_token / shape.experts
    return 1.0 - float(unused_by_one**tokens)


def roofline_of(resolved: Resolved, settings: CacheSettings) -> Roofline | None:
    """Return the roofline of the target; None where the bandwidth is not known."""
    hardware: Hardware = resolved.profile.hardware
    if hardware.bandwidth_gb_s is None:
        return None
    return Roofline(
        weights=weight_bytes_read(resolved.model, resolved.lm_head),
        experts=expert_bytes(resolved.model),
        bandwidth=hardware.bandwidth_gb_s * 1e9,
        ranks=settings.tensor_parallel,
        architecture=resolved.model.architecture,
        element_bytes=settings.element_bytes,
        efficiency=hardware.decode_efficiency,
    )


def drafting_of(resolved: Resolved) -> DraftingEstimate | None:
    """Return the cost of the chosen drafter; None without one."""
    if resolved.drafter is None:
        return None
    return drafting(resolved.model, resolved.drafter, resolved.lm_head)


def drafting(target: ModelSpec, drafter: ModelSpec, lm_head: LmHead | None = None) -> DraftingEstimate | None:
    """Return the cost of drafting: the drafter's weights against the target's, each read once per pass.

    lm_head: of the target, if it is quantized at load. None when the catalog has no speculative config of the drafter.
    """
    if drafter.speculative is None:
        return None
    tokens = drafter.speculative.num_speculative_tokens
    if drafter.architecture.layers:
        drafter_bytes = _bytes_of_one_token(drafter)
    else:
        # Without layers in the catalog, count the whole file: its head is its embedding, as in the target.
        drafter_bytes = int(drafter.size_gb * 1e9)
    # DFlash drafts a block in one pass; the other methods need a pass for each token.
    passes_per_token = 1 / tokens if drafter.speculative.method == "dflash" else 1.0
    return DraftingEstimate(
        tokens=tokens, cost=passes_per_token * drafter_bytes / _bytes_of_one_token(target, lm_head)
    )


def _bytes_of_one_token(model: ModelSpec, lm_head: LmHead | None = None) -> float:
    """Return the bytes of weights that a step with one token reads."""
    return weight_bytes_read(model, lm_head) + expert_bytes(model) * used_experts(model.architecture, 1)


def expert_bytes(model: ModelSpec) -> int:
    """Return the bytes of all experts of a model; 0 without experts."""
    shape = model.architecture
    if "experts" in model.component_bytes:
        return model.component_bytes["experts"]
    parameters = shape.layers * shape.experts * 3 * shape.hidden_size * shape.expert_intermediate_size
    if model.quantization == "none":
        return parameters * 2
    return int(parameters * NVFP4_BYTES)


def weight_bytes_read(model: ModelSpec, lm_head: LmHead | None = None) -> int:
    """Return the bytes of weights that each step reads: all linears and the head, without experts.

    Neither the embedding's rows nor the vision tower count. The head is the embedding (tied), in BF16 in
    every quantization here, unless the plugin quantizes it (lm_head).
    """
    shape = model.architecture
    head = lm_head_bytes(model, lm_head)
    if model.component_bytes:
        return model.component_bytes.get("language", 0) + copied_value_bytes(model) + head
    linears = list(_linear_shapes(shape))
    parameters = sum(inputs * outputs for inputs, outputs in linears)
    if model.quantization == "none":
        return parameters * 2 + head
    residual = 0
    if model.quantization == "nvfp4_svd":
        residual = sum(inputs + outputs for inputs, outputs in linears) * SVD_RANK * 2
    return int(parameters * NVFP4_BYTES) + residual + head


def kv_bytes_read(shape: Architecture, element_bytes: int, context: int) -> int:
    """Return the bytes of keys and values that one sequence of `context` tokens reads in a step.

    A layer that shares the cache of another layer reads that cache again.
    """
    full_layers = shape.layers - shape.sliding_layers
    full = full_layers * shape.global_kv_heads * shape.global_head_dim * context
    sliding = shape.sliding_layers * shape.kv_heads * shape.head_dim * min(context, shape.sliding_window)
    return 2 * element_bytes * (full + sliding)


def _linear_shapes(shape: Architecture) -> Iterator[tuple[int, int]]:
    """Yield inputs and outputs of every linear of the text tower (models/gemma4.py of vLLM 0.19.1).

    With k_eq_v vLLM copies the key weights of a full layer into the place of the value weights, and reads
    both.
    """
    hidden = shape.hidden_size
    kinds = (
        (shape.sliding_layers, shape.kv_heads, shape.head_dim),
        (shape.layers - shape.sliding_layers, shape.global_kv_heads, shape.global_head_dim),
    )
    for layers, kv_heads, head_dim in kinds:
        attention = shape.attention_heads * head_dim
        key_or_value = (hidden, kv_heads * head_dim)
        feed_forward = (hidden, shape.intermediate_size)
        for _ in range(layers):
            yield from ((hidden, attention), key_or_value, key_or_value, (attention, hidden))
            yield from (feed_forward, feed_forward, feed_forward)
            if shape.per_layer_input_size:
                yield (hidden, shape.per_layer_input_size)
                yield (hidden, shape.per_layer_input_size)
    if shape.per_layer_input_size:
        yield (hidden, shape.layers * shape.per_layer_input_size)
