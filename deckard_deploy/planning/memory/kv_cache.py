"""The KV cache layout of vLLM 0.19.1: groups of layers, pages, blocks, and the figures that vLLM logs.

A block has the same size in bytes in every group, so two numbers are enough: the bytes of a block and the
blocks of a sequence. tests/e2e/test_kv_oracle.py compares the results with vLLM's own functions. Paths here
are below vllm/v1/ of that release; sizes are bytes, lengths are tokens.

Values in this folder are NamedTuples: a dataclass takes eight times as long to define at import, and `plan`
must start quickly.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from deckard_deploy.errors import BadInputError


class LayerKv(NamedTuple):
    """The KV cache of one attention layer on one GPU.

    window: tokens that a sliding layer sees; None for full attention. keeps_all: the sliding layer frees no
    blocks outside its window, so the allocator treats it as full attention (core/kv_cache_utils.py:1160).
    """

    heads: int
    head_size: int
    element_bytes: int
    block_size: int
    window: int | None = None
    keeps_all: bool = False

    @property
    def slides(self) -> bool:
        """True if blocks outside the window are freed."""
        return self.window is not None and not self.keeps_all

    @property
    def page_bytes(self) -> int:
        """Bytes of one block, keys and values (kv_cache_interface.py:82)."""
        return 2 * self.block_size * self.heads * self.head_size * self.element_bytes

    def pages(self, length: int, in_flight: int) -> int:
        """Return the most blocks of a sequence of `length` while one step computes `in_flight` tokens.

        kv_cache_interface.py, `max_memory_usage_bytes` of FullAttentionSpec and SlidingWindowSpec. A window
        need not start at the start of a block, so a sliding layer takes one block more.
        """
        if self.window is None or self.keeps_all:
            return _ceil_div(length, self.block_size)
        return _ceil_div(min(self.window - 1 + in_flight, length), self.block_size) + 1


class Group(NamedTuple):
    """Layers that share a block table. They are equal, unless there is only one group."""

    layers: tuple[LayerKv, ...]

    @property
    def block_size(self) -> int:
        """Tokens in a block."""
        return self.layers[0].block_size


class KvCache(NamedTuple):
    """The groups of all layers, and the bytes of one block in all of their pools together."""

    groups: tuple[Group, ...]
    block_bytes: int

    def sequence_blocks(self, length: int, in_flight: int) -> int:
        """Return vLLM's number of blocks for one sequence (core/kv_cache_utils.py:802 and :1332)."""
        return sum(group.layers[0].pages(length, in_flight) for group in self.groups)

    def sequence_bytes(self, length: int, in_flight: int) -> int:
        """Return the bytes without which vLLM does not start (core/kv_cache_utils.py:619)."""
        return self.block_bytes * self.sequence_blocks(length, in_flight)

    def blocks(self, available: int) -> int:
        """Return the number of blocks in `available` bytes (core/kv_cache_utils.py:839)."""
        return max(0, available // self.block_bytes)

    def tokens(self, blocks: int) -> int:
        """Return the N of "GPU KV cache size: N tokens" (core/kv_cache_utils.py:1287)."""
        return blocks // len(self.groups) * min(group.block_size for group in self.groups)

    def concurrency(self, blocks: int, length: int, in_flight: int) -> float:
        """Return the X of "Maximum concurrency for L tokens per request: Xx" (core/kv_cache_utils.py:802)."""
        return blocks / self.sequence_blocks(length, in_flight)

    def longest(self, available: int, limit: int, in_flight: int) -> int:
        """Return the longest sequence that fits, up to `limit`, or 0 (core/kv_cache_utils.py:1370)."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.sequence_bytes(middle, in_flight) <= available:
                low = middle
            else:
                high = middle - 1
        return low

    def sequences(self, blocks: int, length: int, in_flight: int) -> int:
        """Return the number of sequences of `length` that fit in practice.

        vLLM's own figure charges a whole batch in flight to each sequence. A step has only one batch for all
        of them, so a decoding sequence keeps only its window.
        """
        decoding = self.sequence_blocks(length, 1)
        batch = self.sequence_blocks(length, in_flight) - decoding
        return max(0, (blocks - batch) // decoding)


def kv_cache(layers: Sequence[LayerKv], *, hybrid: bool = True) -> KvCache:
    """Group `layers` as core/kv_cache_utils.py `get_kv_cache_groups` does.

    layers: in the model's order, a drafter's last.
    hybrid: False with --disable-hybrid-kv-cache-manager. Raises BadInputError where vLLM would refuse to
    start.
    """
    if not hybrid:
        layers = _keep_all_blocks(layers)
    if _is_uniform(layers):
        return KvCache((Group(tuple(layers)),), sum(layer.page_bytes for layer in layers))
    kinds = Counter(_with_equal_pages(layers))
    group_size = _group_size(list(kinds.values()))
    groups = []
    for layer, count in kinds.items():
        number = _ceil_div(count, group_size)
        for index in range(number):
            size = len(range(index, count, number))
            groups.append(Group((layer,) * size))
    pools = max(len(group.layers) for group in groups)
    return KvCache(tuple(groups), pools * groups[0].layers[0].page_bytes)


def _is_uniform(layers: Sequence[LayerKv]) -> bool:
    """Return True if all layers keep every block, or all slide with one window: then one group holds them."""
    if not any(layer.slides for layer in layers):
        return True
    return all(layer.slides for layer in layers) and len({layer.window for layer in layers}) == 1


def _keep_all_blocks(layers: Sequence[LayerKv]) -> Sequence[LayerKv]:
    """Make sliding layers next to full ones keep all blocks.

    `unify_hybrid_kv_cache_specs` (core/kv_cache_utils.py:1160). Raises BadInputError for windows of several
    sizes.
    """
    windows = {layer.window for layer in layers if layer.window is not None and layer.slides}
    if len(windows) > 1:
        sizes = " and ".join(map(str, sorted(windows)))
        raise BadInputError(
            f"layers with windows of {sizes} tokens do not fit into one group of the KV cache",
            hint="--set disable-hybrid-kv-cache-manager=null",
        )
    if all(layer.slides for layer in layers):
        return layers
    return [layer._replace(keeps_all=layer.slides) for layer in layers]


def _with_equal_pages(layers: Sequence[LayerKv]) -> list[LayerKv]:
    """Put more tokens into smaller pages until all have the same size in bytes.

    `unify_kv_cache_spec_page_size` (core/kv_cache_utils.py:914). Raises BadInputError where the sizes do not
    divide.
    """
    largest = max(layer.page_bytes for layer in layers)
    equal = []
    for layer in layers:
        if largest % layer.page_bytes:
            raise BadInputError(
                f"KV pages of {layer.page_bytes} and {largest} bytes do not divide: "
                "this vLLM cannot serve such a model"
            )
        equal.append(layer._replace(block_size=layer.block_size * (largest // layer.page_bytes)))
    return equal


def _group_size(counts: list[int]) -> int:
    """Return the layers per group: of the rarest kind, or of the most frequent one if that pads little.

    core/kv_cache_utils.py:1043.
    """
    fewest = min(counts)
    most = max(counts)
    return most if most < fewest * 1.5 else fewest


def _ceil_div(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
