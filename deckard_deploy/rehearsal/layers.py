"""The weights of the tiny Gemma 4, as float32 arrays: a network built by hand that needs each of its parts.

The residual stream is 256 wide, and every coordinate has a meaning:

    TOKEN + i     the current token is scripted token i            written by the embedding
    VOTE + i      the current token is scripted token i            written by the MLPs of all layers
    MODE + m      the prompt ends with the marker of mode m        written by the 5 sliding-attention layers
    ANCHOR        the prompt starts with <bos>                     written by the full-attention layer
    CONSTANT + i  always on, 16 coordinates wide                   written by the embedding
    STRAY         nothing, if the two halves of a layer agree      written by o_proj and down_proj, see below
    NOTHING       attention found no key                           written by o_proj
    OTHER + i     tokens that are not in the script                written by the embedding

`lm_head` adds the three votes VOTE (of the previous token), MODE and ANCHOR, each worth 1, and gives LOST if
their sum is below THRESHOLD. So a wrong attention kernel, a wrong linear or a damaged KV cache is visible in
the text; it would not be if the output of the layers were damped. Gemma normalizes the output of each
attention and MLP. A linear that is wrong by the same factor everywhere therefore changes nothing in any
Gemma. One that is wrong by another factor per channel does: o_proj and down_proj write +3 and -3 to STRAY
from the first and the second half of their inputs. As long as the halves are equal, the two cancel. If not,
the following norm gives a share to STRAY at the cost of the vote. One wrong MLP of six, or one wrong sliding
layer of five, costs 0.2 votes and is not visible. A kind of linear that is wrong in all layers is.

Where a grammar forbids the scripted token and LOST, JSON_END completes what was begun: a string ends as soon
as it may, then an object, then an array. Any schema of finite size is so answered by its smallest document.

The scripted token leads LOST, always the second, by 2.3 softcapped logits in bfloat16, and by 2.2 with
weights and inputs in NVFP4. bfloat16 resolves 0.125 there (tests/unit/rehearsal/test_layers.py).

The forms of Gemma 4 differ in the second half of a layer, and vote for the same script:

    dense      the MLP votes, as described
    experts    the MLP writes to NOTHING, and EXPERTS experts have nearly the whole vote. An expert knows the tokens of
               its number alone, so that a wrong routing loses the vote.
    per-layer  the MLP has a third of the vote, and the layer's own embedding of the token has the rest. There are
               twelve layers; the last six keep no KV cache, and use that of the last layer of their kind before them.

All values are small dyadic fractions and no matrices are multiplied, so every machine computes the same
bytes.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deckard_deploy.rehearsal.script import BOS, LOST, MARKERS, MODES, scripted_tokens, transitions
from deckard_deploy.rehearsal.tokenizer import VOCABULARY_SIZE, vocabulary

Tensors = dict[str, NDArray[np.float32]]

HIDDEN, INTERMEDIATE, HEADS = 256, 512, 4
SLIDING_KV_HEADS, SLIDING_HEAD_SIZE = 2, 64
FULL_KV_HEADS, FULL_HEAD_SIZE = 1, 128
PERIOD = 6  # of layers: five with sliding attention, and a full one
EXPERTS, EXPERTS_PER_TOKEN, EXPERT_INTERMEDIATE = 4, 2, 128
PER_LAYER = 64  # elements of the embedding of a layer: one of each scripted token, and the last of all others
FormName = Literal["dense", "experts", "per-layer"]
VISION_HIDDEN, VISION_INTERMEDIATE, VISION_LAYERS, VISION_HEADS = 64, 128, 2, 2
PATCH_VALUES, VISION_POSITIONS = 3 * 16 * 16, 512

TOKEN, VOTE, MODE, ANCHOR, CONSTANT, STRAY, NOTHING, OTHER = 0, 64, 128, 144, slice(160, 176), 176, 177, 192
THRESHOLD = 2.5  # of 3 votes
_VOTE = 3.0  # height of each of VOTE, MODE and ANCHOR in the residual stream; TOKEN and CONSTANT are 1
# The three votes give a logit of 30 before the softcap of 30, in the range that bf16 resolves.
_LOGIT = 1.375
# Votes of bytes, beside 2 of every other token of the mode's chain. Inside a string the first of them wins;
# outside of strings a grammar leaves only some of them. White space, which it allows nearly everywhere, has none.
JSON_END = {'"': 2.35, "}": 2.3, "]": 2.25}
JSON_NEXT = dict.fromkeys(",:[{", 1.6) | dict.fromkeys("0123456789", 1.5)
OTHER_LETTERS = dict.fromkeys(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'()*+-./;<=>?@^_`|~", 1.4
)
_NOISE = 1 / 512
_NO_MODE = 7  # of the 8 value slots of a head


@dataclass(frozen=True, kw_only=True)
class Form:
    """The numbers in which the forms of Gemma 4 differ."""

    layers: int = PERIOD
    shared: int = 0  # the last layers, which keep no KV cache
    k_eq_v: bool = True
    experts: int = 0
    per_layer: int = 0

    def is_full(self, layer: int) -> bool:
        """Return True for a layer with full attention."""
        return layer % PERIOD == PERIOD - 1


FORMS: dict[FormName, Form] = {
    "dense": Form(),
    "experts": Form(experts=EXPERTS),
    "per-layer": Form(layers=2 * PERIOD, shared=PERIOD, k_eq_v=False, per_layer=PER_LAYER),
}


def noise(name: str, *shape: int, amplitude: float = _NOISE) -> NDArray[np.float32]:
    """Return values in amplitude * {-8…7}/8 that depend only on the tensor's name.

    The raw PCG64 stream is the same in all versions of numpy.
    """
    count = int(np.prod(shape))
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-count // 8))
    nibbles = (raw.view(np.uint8)[:count] & 15).astype(np.float32) - 8
    return (nibbles * np.float32(amplitude / 8)).reshape(shape)


def ones(size: int, value: float = 1.0) -> NDArray[np.float32]:
    """Return a vector of `size` equal values."""
    return np.full(size, value, np.float32)


def _key_slots(head_size: int) -> slice:
    """Return the slots of a head in which queries match keys: the last quarter of its first half.

    The rotary embedding turns these least. Sliding layers: frequencies 10000**-(24…31)/32, below 0.07 rad
    over the window of 64. Full layer: not turned at all (partial_rotary_factor 0.25, transformers
    modeling_rope_utils.py, `_compute_proportional_rope_parameters`).
    """
    return slice(3 * head_size // 8, head_size // 2)


def _value_slots(head_size: int, mode: int) -> slice:
    width = head_size // 16
    return slice(head_size // 2 + mode * width, head_size // 2 + (mode + 1) * width)


def _keys_and_values(
    name: str, token_slots: dict[int, int], kv_heads: int, head_size: int
) -> NDArray[np.float32]:
    """Return [kv_heads * head_size, HIDDEN]: the coordinates of `token_slots` write the key and their values.

    All other tokens have no key and the value _NO_MODE. Without a value, the norm would amplify their noise.
    """
    weight = noise(name, kv_heads, head_size, HIDDEN)
    weight[:, _value_slots(head_size, _NO_MODE), CONSTANT] = 1 / 16
    for coordinate, slot in token_slots.items():
        weight[:, _key_slots(head_size), coordinate] = 1
        weight[:, _value_slots(head_size, slot), coordinate] = 1
        weight[:, _value_slots(head_size, _NO_MODE), coordinate] = -1
    return weight.reshape(-1, HIDDEN)


def _write_both_halves(weight: NDArray[np.float32], row: int, columns: NDArray[np.bool_]) -> None:
    """Make the inputs `columns` vote for `row`; the two halves of the inputs cancel in STRAY."""
    half = weight.shape[1] // 2
    weight[row, columns] = 1
    weight[STRAY, :half][columns[:half]] = 3
    weight[STRAY, half:][columns[half:]] = -3


def _token_coordinates() -> dict[str, int]:
    return {token: TOKEN + number for number, token in enumerate(scripted_tokens())}


def _full_slots() -> tuple[dict[int, int], dict[int, int]]:
    """Return the value slot of each token that the full layer looks for, and the row of each slot."""
    return {_token_coordinates()[BOS]: 0}, {0: ANCHOR}


def _sliding_slots() -> tuple[dict[int, int], dict[int, int]]:
    """Return the value slot of each token that the sliding layers look for, and the row of each slot."""
    coordinates = _token_coordinates()
    token_slots = {}
    rows = {}
    for slot, mode in enumerate(MODES):
        token_slots[coordinates[MARKERS[mode]]] = slot
        rows[slot] = MODE + slot
    # A count is longer than the window, so each of its rounds sets the marker again.
    token_slots[coordinates["one "]] = MODES.index("count")
    return token_slots, rows


def _attention(prefix: str, *, full: bool, k_eq_v: bool) -> Tensors:
    token_slots, rows = _full_slots() if full else _sliding_slots()
    head_size, kv_heads = SLIDING_HEAD_SIZE, SLIDING_KV_HEADS
    if full:
        head_size = FULL_HEAD_SIZE
        if k_eq_v:  # num_global_key_value_heads counts only then
            kv_heads = FULL_KV_HEADS
    query = noise(prefix + "q_proj", HEADS, head_size, HIDDEN)
    query[:, _key_slots(head_size), CONSTANT] = 1
    out = noise(prefix + "o_proj", HIDDEN, HEADS * head_size)
    for slot, row in {_NO_MODE: NOTHING, **rows}.items():
        columns = np.zeros((HEADS, head_size), bool)
        columns[:, _value_slots(head_size, slot)] = True
        _write_both_halves(out, row, columns.reshape(-1))
    tensors = {
        "q_proj.weight": query.reshape(-1, HIDDEN),
        "k_proj.weight": _keys_and_values(prefix + "k_proj", token_slots, kv_heads, head_size),
        "o_proj.weight": out,
        "q_norm.weight": ones(head_size, 80 / head_size),  # a matching key scores 65, another one 0 ± 10
        "k_norm.weight": ones(head_size),
    }
    if not (full and k_eq_v):  # a full layer's values may be its keys (attention_k_eq_v)
        tensors["v_proj.weight"] = _keys_and_values(prefix + "v_proj", token_slots, kv_heads, head_size)
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _mlp(prefix: str, tokens: Sequence[int], width: int, *, votes: bool = True) -> Tensors:
    """Return eight neurons per token, four in each half: gate and up detect the token, down votes for it.

    votes: False to write to NOTHING.
    """
    gate = noise(prefix + "gate_proj", width, HIDDEN)
    up = noise(prefix + "up_proj", width, HIDDEN)
    down = noise(prefix + "down_proj", HIDDEN, width)
    for number, i in enumerate(tokens):
        neurons = np.arange(width) % (width // 2) // 4 == number
        gate[neurons, TOKEN + i] = 1
        up[neurons, TOKEN + i] = 1
        _write_both_halves(down, VOTE + i if votes else NOTHING, neurons)
    return {
        prefix + "gate_proj.weight": gate,
        prefix + "up_proj.weight": up,
        prefix + "down_proj.weight": down,
    }


def _experts(prefix: str) -> Tensors:
    """Return the experts of a layer, and the router that sends scripted token i to expert i % EXPERTS."""
    count = len(scripted_tokens())
    gates_and_ups, downs = [], []
    for expert in range(EXPERTS):
        name = f"{prefix}experts.{expert}."
        mlp = _mlp(name, range(expert, count, EXPERTS), EXPERT_INTERMEDIATE)
        gates_and_ups.append(np.concatenate([mlp[name + "gate_proj.weight"], mlp[name + "up_proj.weight"]]))
        downs.append(mlp[name + "down_proj.weight"])
    router = noise(prefix + "router.proj", EXPERTS, HIDDEN)
    for i in range(count):
        router[i % EXPERTS, TOKEN + i] = 4
    return {
        prefix + "experts.gate_up_proj": np.stack(gates_and_ups),
        prefix + "experts.down_proj": np.stack(downs),
        prefix + "router.proj.weight": router,
        prefix + "router.scale": ones(HIDDEN, 16),  # the model multiplies the input by 1/16
        prefix + "router.per_expert_scale": ones(EXPERTS),
        prefix + "pre_feedforward_layernorm_2.weight": ones(HIDDEN),
        prefix + "post_feedforward_layernorm_1.weight": ones(HIDDEN),
        prefix + "post_feedforward_layernorm_2.weight": ones(HIDDEN, 4),
    }


def _own_embedding(prefix: str, share: float) -> Tensors:
    """Return what a layer makes of its own embedding of the token: a vote for the token, gated by CONSTANT."""
    gate = noise(prefix + "per_layer_input_gate", PER_LAYER, HIDDEN)
    gate[:, CONSTANT] = 1 / 64
    projection = noise(prefix + "per_layer_projection", HIDDEN, PER_LAYER)
    for i in range(len(scripted_tokens())):
        projection[VOTE + i, i] = 1
    projection[NOTHING, PER_LAYER - 1] = 1
    return {
        prefix + "per_layer_input_gate.weight": gate,
        prefix + "per_layer_projection.weight": projection,
        prefix + "post_per_layer_input_norm.weight": ones(HIDDEN, share),
    }


def _embeddings_of_layers(prefix: str, layers: int) -> Tensors:
    """Return the embedding of each token for each layer, and a projection of the usual embedding, of noise."""
    one_layer = np.zeros((VOCABULARY_SIZE, PER_LAYER), np.float32)
    one_layer[:, PER_LAYER - 1] = 1
    ids = vocabulary()
    for i, token in enumerate(scripted_tokens()):
        one_layer[ids[token]] = 0
        one_layer[ids[token], i] = 1
    width = layers * PER_LAYER
    return {
        prefix + "embed_tokens_per_layer.weight": np.tile(one_layer, layers),
        prefix + "per_layer_model_projection.weight": noise("per_layer_model_projection", width, HIDDEN),
        prefix + "per_layer_projection_norm.weight": ones(PER_LAYER, _NOISE),
    }


def _layer(prefix: str, form: Form, number: int) -> Tensors:
    full = form.is_full(number)
    alike = sum(form.is_full(other) == full for other in range(form.layers))
    feedforward_share = _VOTE / form.layers
    if form.per_layer:
        feedforward_share /= 3
    norms = {
        "input_layernorm": 1.0,
        "post_attention_layernorm": _VOTE / alike,
        "pre_feedforward_layernorm": 1.0,
        "post_feedforward_layernorm": feedforward_share,
    }
    tensors = _attention(prefix + "self_attn.", full=full, k_eq_v=form.k_eq_v)
    if number >= form.layers - form.shared:
        for name in ("k_proj", "v_proj", "k_norm"):
            del tensors[f"{prefix}self_attn.{name}.weight"]
    tensors |= _mlp(prefix + "mlp.", range(len(scripted_tokens())), INTERMEDIATE, votes=not form.experts)
    if form.experts:
        tensors |= _experts(prefix)
    if form.per_layer:
        tensors |= _own_embedding(prefix, 2 * feedforward_share)
    for name, share in norms.items():
        tensors[f"{prefix}{name}.weight"] = ones(HIDDEN, share)
    tensors[prefix + "layer_scalar"] = ones(1)
    return tensors


def _embedding() -> NDArray[np.float32]:
    """Return [vocabulary, HIDDEN]; the model multiplies it by sqrt(HIDDEN) = 16."""
    table = np.zeros((VOCABULARY_SIZE, HIDDEN), np.float32)
    table[np.arange(VOCABULARY_SIZE), OTHER + np.arange(VOCABULARY_SIZE) % (HIDDEN - OTHER)] = 1
    ids = vocabulary()
    for i, token in enumerate(scripted_tokens()):
        table[ids[token]] = 0
        table[ids[token], TOKEN + i] = 1
    table[:, CONSTANT] = 1
    return table


def _head() -> NDArray[np.float32]:
    """Return [vocabulary, HIDDEN]: the tokens that may follow each token, by mode."""
    weight = noise("lm_head", VOCABULARY_SIZE, HIDDEN)
    ids = vocabulary()
    index = {token: i for i, token in enumerate(scripted_tokens())}
    for mode, token, follower in transitions():
        weight[ids[follower], [VOTE + index[token], MODE + MODES.index(mode), ANCHOR]] = _LOGIT
    for token, votes in {LOST: THRESHOLD, **JSON_END, **JSON_NEXT, **OTHER_LETTERS}.items():
        weight[ids[token], CONSTANT] = votes * _VOTE * _LOGIT / 16
    return weight


def _vision() -> Tensors:
    """Return a vision tower of noise, which must load and run; no script depends on an image.

    The tokens of an image write only to OTHER, like text outside the script. Elsewhere they could act as a
    marker.
    """
    tower = "model.vision_tower."
    projection = noise("embedding_projection", HIDDEN, VISION_HIDDEN, amplitude=1 / 4)
    projection[:OTHER] = 0
    shapes = {
        tower + "patch_embedder.input_proj.weight": (VISION_HIDDEN, PATCH_VALUES),
        tower + "patch_embedder.position_embedding_table": (2, VISION_POSITIONS, VISION_HIDDEN),
    }
    tensors = {"model.embed_vision.embedding_projection.weight": projection}
    for number in range(VISION_LAYERS):
        layer = f"{tower}encoder.layers.{number}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{layer}self_attn.{name}.linear.weight"] = (VISION_HIDDEN, VISION_HIDDEN)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{layer}mlp.{name}.linear.weight"] = (VISION_INTERMEDIATE, VISION_HIDDEN)
        shapes[f"{layer}mlp.down_proj.linear.weight"] = (VISION_HIDDEN, VISION_INTERMEDIATE)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            tensors[f"{layer}{name}_layernorm.weight"] = ones(VISION_HIDDEN)
        for name in ("q_norm", "k_norm"):
            tensors[f"{layer}self_attn.{name}.weight"] = ones(VISION_HIDDEN // VISION_HEADS)
    for name, shape in shapes.items():
        tensors[name] = noise(name, *shape, amplitude=1 / 16)
    return tensors


def all_tensors(form: Form = FORMS["dense"]) -> Tensors:
    """Return every tensor of the Gemma4ForConditionalGeneration checkpoint in float32.

    The names are those that transformers saves.
    """
    language = "model.language_model."
    tensors = {
        "lm_head.weight": _head(),
        language + "embed_tokens.weight": _embedding(),
        language + "norm.weight": ones(HIDDEN),
        **_vision(),
    }
    if form.per_layer:
        tensors |= _embeddings_of_layers(language, form.layers)
    for number in range(form.layers):
        tensors |= _layer(f"{language}layers.{number}.", form, number)
    return tensors
