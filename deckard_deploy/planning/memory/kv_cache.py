"""The KV cache as vLLM 0.19.1 lays it out: groups of layers, pages, blocks, and what it prints about them.

One block of every group has the same size in bytes, so everything follows from two numbers: the bytes of a block and
the blocks that a sequence takes. Compared with vLLM's own functions by tests/e2e/test_kv_oracle.py. Paths in here are
below vllm/v1/ of that release; sizes are bytes, lengths are tokens.

Values here and in the modules beside are NamedTuples: a dataclass takes eight times as long to make, when the module
is imported, and `plan` must start quickly.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from deckard_deploy.errors import BadInputError


class LayerKv(NamedTuple):
    """The KV cache of one attention layer on one GPU.

    `window`: tokens that a sliding layer sees, None for full attention. A sliding layer frees blocks outside its window
    unless `keeps_all`: that is full attention to the allocator (core/kv_cache_utils.py:1160).
    """

    heads: int
    head_size: int
    element_bytes: int
    block_size: int
    window: int | None = None
    keeps_all: bool = False

    @property
    def slides(self) -> bool:
        """Whether blocks outside the window are freed."""
        return self.window is not None and not self.keeps_all

    @property
    def page_bytes(self) -> int:
        """Bytes of one block: keys and values (kv_cache_interface.py:82)."""
        return 2 * self.block_size * self.heads * self.head_size * self.element_bytes

    def pages(self, length: int, in_flight: int) -> int:
        """Blocks that a sequence of `length` may take, `in_flight` tokens being computed in one step.

        kv_cache_interface.py, `max_memory_usage_bytes` of FullAttentionSpec and SlidingWindowSpec. The extra block of a
        sliding layer: a window need not begin where a block does.
        """
        if self.window is None or self.keeps_all:
            return _ceil(length, self.block_size)
        return _ceil(min(self.window - 1 + in_flight, length), self.block_size) + 1


class Group(NamedTuple):
    """Layers that share a block table. Layers differ only when there is one group."""

    layers: tuple[LayerKv, ...]

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return self.layers[0].block_size


class KvCache(NamedTuple):
    """The groups of all layers, and how many bytes one block takes over all of their pools."""

    groups: tuple[Group, ...]
    block_bytes: int

    def sequence_blocks(self, length: int, in_flight: int) -> int:
        """Blocks that vLLM counts for one sequence of `length` tokens (core/kv_cache_utils.py:802 and :1332)."""
        return sum(group.layers[0].pages(length, in_flight) for group in self.groups)

    def sequence_bytes(self, length: int, in_flight: int) -> int:
        """What must be available, or vLLM does not start (core/kv_cache_utils.py:619)."""
        return self.block_bytes * self.sequence_blocks(length, in_flight)

    def blocks(self, available: int) -> int:
        """Blocks made of `available` bytes (core/kv_cache_utils.py:839)."""
        return max(0, available // self.block_bytes)

    def tokens(self, blocks: int) -> int:
        """The N of "GPU KV cache size: N tokens" (core/kv_cache_utils.py:1287)."""
        return blocks // len(self.groups) * min(group.block_size for group in self.groups)

    def concurrency(self, blocks: int, length: int, in_flight: int) -> float:
        """The X of "Maximum concurrency for L tokens per request: Xx" (core/kv_cache_utils.py:802)."""
        return blocks / self.sequence_blocks(length, in_flight)

    def longest(self, available: int, limit: int, in_flight: int) -> int:
        """The longest sequence that fits, up to `limit`; 0 when none does (core/kv_cache_utils.py:1370)."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.sequence_bytes(middle, in_flight) <= available
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def sequences(self, blocks: int, length: int, in_flight: int) -> int:
        """Sequences of `length` that fit in practice.

        vLLM's own figure charges each of them a whole batch in flight; a step has only one batch for all of them, so a
        sequence that decodes keeps its window and no more.
        """
        decoding = self.sequence_blocks(length, 1)
        batch = self.sequence_blocks(length, in_flight) - decoding
        return max(0, (blocks - batch) // decoding)


def kv_cache(layers: Sequence[LayerKv], *, hybrid: bool = True) -> KvCache:
    """Group `layers` (in the model's order, a drafter's last) as core/kv_cache_utils.py `get_kv_cache_groups` does.

    hybrid: False with --disable-hybrid-kv-cache-manager. Raises BadInputError where vLLM would refuse to start.
    """
    layers = layers if hybrid else _without_hybrid(layers)
    if not any(layer.slides for layer in layers) or (
        all(layer.slides for layer in layers) and len({layer.window for layer in layers}) == 1
    ):
        return KvCache((Group(tuple(layers)),), sum(layer.page_bytes for layer in layers))
    kinds = Counter(_with_equal_pages(layers))
    size = _group_size(list(kinds.values()))
    groups = []
    for layer, count in kinds.items():
        number = _ceil(count, size)
        groups += [Group((layer,) * len(range(i, count, number))) for i in range(number)]
    pools = max(len(group.layers) for group in groups)
    return KvCache(tuple(groups), pools * groups[0].layers[0].page_bytes)


def _without_hybrid(layers: Sequence[LayerKv]) -> Sequence[LayerKv]:
    """Sliding layers beside full ones keep everything (`unify_hybrid_kv_cache_specs`, core/kv_cache_utils.py:1160)."""
    windows = {layer.window for layer in layers if layer.slides}
    if len(windows) > 1:
        raise BadInputError(
            f"layers with windows of {' and '.join(map(str, sorted(w for w in windows if w)))} tokens do not fit into "
            "one group of the KV cache",
            hint="--set disable-hybrid-kv-cache-manager=null",
        )
    if all(layer.slides for layer in layers):
        return layers
    return [layer._replace(keeps_all=layer.slides) for layer in layers]


def _with_equal_pages(layers: Sequence[LayerKv]) -> list[LayerKv]:
    """Smaller pages take more tokens (`unify_kv_cache_spec_page_size`, core/kv_cache_utils.py:914)."""
    page = max(layer.page_bytes for layer in layers)
    odd = next((layer.page_bytes for layer in layers if page % layer.page_bytes), None)
    if odd is not None:
        raise BadInputError(
            f"KV pages of {odd} and {page} bytes do not divide: this vLLM cannot serve such a model"
        )
    return [layer._replace(block_size=layer.block_size * (page // layer.page_bytes)) for layer in layers]


def _group_size(counts: list[int]) -> int:
    """Layers in a group: of the rarest kind, or the most frequent if padding is cheap (core/kv_cache_utils.py:1043)."""
    fewest, most = min(counts), max(counts)
    return most if most < fewest * 1.5 else fewest


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
