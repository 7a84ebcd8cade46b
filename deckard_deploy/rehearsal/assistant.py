"""A tiny MTP drafter (Gemma4AssistantForCausalLM) for the tiny Gemma 4, in three kinds.

An assistant gets the embedding of the last token and the target's hidden state at the token before, both as
wide as the target. Its layers have only queries and read the target's KV cache. This drafter is narrower than
its target (128 and 256), so that a mix-up of the two widths fails. It reads the token from the embedding and
the mode of the prompt from the hidden state, and passes the mode on to its next step. Its layers compute, but
their output is damped to 1/512.

Kind `good` follows the script. With `short` the first token of a draft is right and all later ones are LOST.
`random` is noise.
"""

import json
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from deckard_deploy.rehearsal import layers as target
from deckard_deploy.rehearsal.folder import ensure_generated
from deckard_deploy.rehearsal.gemma4 import CONTEXT_TOKENS, text_config
from deckard_deploy.rehearsal.layers import Tensors, noise, ones
from deckard_deploy.rehearsal.script import LOST, MODES, scripted_tokens, transitions
from deckard_deploy.rehearsal.tokenizer import VOCABULARY_SIZE, tokenizer_config, tokenizer_json, vocabulary

Kind = Literal["good", "short", "random"]

GENERATOR_VERSION = 1
HIDDEN, INTERMEDIATE = 128, 128
TOKEN, MODE, LATER, ALWAYS = 0, 64, 80, 81  # coordinates of the drafter's residual stream
_DAMPING = 1 / 512


def write(folder: Path, *, kind: Kind = "good") -> Path:
    """Write the drafter (1 MB) to `folder` and return the folder. Raises as ensure_generated does."""
    description = {"generator_version": GENERATOR_VERSION, "assistant": kind}
    return ensure_generated(folder, description, lambda fresh: _write_files(fresh, kind))


def _write_files(folder: Path, kind: Kind) -> None:
    texts = {
        "config.json": _config(),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": tokenizer_config(CONTEXT_TOKENS),
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    tensors = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in all_tensors(kind).items()}
    file = folder / "model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors creates it with 0600, but the user of a container must read it


def _config() -> dict[str, object]:
    """Return `config.json` with the keys of transformers 5.19's Gemma4AssistantConfig.

    The attention is that of the target, because the drafter reads its cache.
    """
    text = {
        **text_config(),
        "vocab_size_per_layer_input": 0,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 2,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    return {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "model_type": "gemma4_assistant",
        "dtype": "bfloat16",
        "backbone_hidden_size": target.HIDDEN,
        "tie_word_embeddings": False,
        "text_config": text,
    }


def all_tensors(kind: Kind) -> Tensors:
    """Return every tensor of the checkpoint in float32, with the names that transformers saves."""
    layer_gain = 1.0 if kind == "random" else _DAMPING
    tensors = {"model.norm.weight": ones(HIDDEN)}
    shapes = {
        "model.embed_tokens.weight": (VOCABULARY_SIZE, HIDDEN),  # vLLM uses the target's instead
        "lm_head.weight": (VOCABULARY_SIZE, HIDDEN),
        "pre_projection.weight": (HIDDEN, 2 * target.HIDDEN),
        "post_projection.weight": (target.HIDDEN, HIDDEN),
    }
    for number, head_size in enumerate((target.SLIDING_HEAD_SIZE, target.FULL_HEAD_SIZE)):
        layer = f"model.layers.{number}."
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (target.HEADS * head_size, HIDDEN),
            f"{layer}self_attn.o_proj.weight": (HIDDEN, target.HEADS * head_size),
            f"{layer}mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{layer}mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{layer}mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
        tensors[f"{layer}self_attn.q_norm.weight"] = ones(head_size)
        tensors[f"{layer}layer_scalar"] = ones(1)
        for name in ("input_layernorm", "pre_feedforward_layernorm"):
            tensors[f"{layer}{name}.weight"] = ones(HIDDEN)
        for name in ("post_attention_layernorm", "post_feedforward_layernorm"):
            tensors[f"{layer}{name}.weight"] = ones(HIDDEN, layer_gain)
    for name, shape in shapes.items():
        tensors[name] = noise(f"assistant {name}", *shape, amplitude=1 / 4)
    if kind != "random":
        tensors |= _scripted(later_lost=kind == "short")
    return tensors


def _scripted(*, later_lost: bool) -> Tensors:
    """Return the projections and the head that follow the script.

    In the target's hidden state OTHER is zero for a scripted token. The drafter sets it to mark a step after
    the first.
    """
    ids = vocabulary()
    index = {token: number for number, token in enumerate(scripted_tokens())}
    into = np.zeros((HIDDEN, 2 * target.HIDDEN), np.float32)
    back = np.zeros((target.HIDDEN, HIDDEN), np.float32)
    head = np.zeros((VOCABULARY_SIZE, HIDDEN), np.float32)
    for number in index.values():
        into[TOKEN + number, target.TOKEN + number] = 1 / 2  # the embedding has the height 16
    for number in range(len(MODES)):
        into[MODE + number, target.HIDDEN + target.MODE + number] = 1
        back[target.MODE + number, MODE + number] = 1
    into[ALWAYS, target.CONSTANT.start] = 1 / 2
    into[LATER, target.HIDDEN + target.OTHER] = 1
    back[target.OTHER, ALWAYS] = 1
    for mode, token, follower in transitions():
        head[ids[follower], [TOKEN + index[token], MODE + MODES.index(mode)]] = 1
    if later_lost:
        head[ids[LOST], LATER] = 4
    return {"pre_projection.weight": into, "post_projection.weight": back, "lm_head.weight": head}
