"""Checkpoints of random weights that are no Gemma 4: a chat model, one of vectors, and one of scores."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from deckard_deploy.rehearsal.layers import noise, ones
from deckard_deploy.rehearsal.tokenizer import (
    VOCABULARY_SIZE,
    chat_template,
    tokenizer_config,
    tokenizer_json,
)

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_SIZE, POSITIONS = 128, 256, 2, 4, 2, 32, 512
Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, NDArray[np.float32]]


def write_llama(folder: Path) -> Path:
    """Write a LlamaForCausalLM, with the chat template of the tiny Gemma 4."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_SIZE,
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    shapes: Shapes = {
        "model.embed_tokens.weight": (VOCABULARY_SIZE, HIDDEN),
        "lm_head.weight": (VOCABULARY_SIZE, HIDDEN),
    }
    norms = ["model.norm.weight"]
    for number in range(LAYERS):
        layer = f"model.layers.{number}."
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (HEADS * HEAD_SIZE, HIDDEN),
            f"{layer}self_attn.k_proj.weight": (KV_HEADS * HEAD_SIZE, HIDDEN),
            f"{layer}self_attn.v_proj.weight": (KV_HEADS * HEAD_SIZE, HIDDEN),
            f"{layer}self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_SIZE),
            f"{layer}mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{layer}mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{layer}mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
        norms += [f"{layer}input_layernorm.weight", f"{layer}post_attention_layernorm.weight"]
    _write(folder, config, _tensors(shapes, norms))
    (folder / "chat_template.jinja").write_text(chat_template("large"))
    return folder


def write_embedder(folder: Path) -> Path:
    """Write a BertModel as sentence-transformers does: the mean of the tokens is the vector."""
    _write(folder, {**_bert_config(), "architectures": ["BertModel"]}, _bert_tensors())
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def write_reranker(folder: Path, labels: int = 1) -> Path:
    """Write a BertForSequenceClassification with so many labels."""
    named = {str(number): f"LABEL_{number}" for number in range(labels)}
    config = {**_bert_config(), "architectures": ["BertForSequenceClassification"], "id2label": named}
    tensors = {f"bert.{name}": tensor for name, tensor in _bert_tensors().items()}
    tensors |= _tensors({"classifier.weight": (labels, HIDDEN), "classifier.bias": (labels,)}, [])
    _write(folder, config, tensors)
    return folder


def _bert_config() -> dict[str, object]:
    return {
        "model_type": "bert",
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
    }


def _bert_tensors() -> Tensors:
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (VOCABULARY_SIZE, HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.bias": (HIDDEN,),
        "pooler.dense.weight": (HIDDEN, HIDDEN),
        "pooler.dense.bias": (HIDDEN,),
    }
    norms = ["embeddings.LayerNorm.weight"]
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
            shapes |= _linear(f"{layer}{name}", HIDDEN, HIDDEN)
        shapes |= _linear(f"{layer}attention.output.dense", HIDDEN, HIDDEN)
        shapes |= _linear(f"{layer}intermediate.dense", INTERMEDIATE, HIDDEN)
        shapes |= _linear(f"{layer}output.dense", HIDDEN, INTERMEDIATE)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}{name}.bias"] = (HIDDEN,)
            norms.append(f"{layer}{name}.weight")
    return _tensors(shapes, norms)


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _tensors(shapes: Shapes, norms: list[str]) -> Tensors:
    tensors = {name: noise(name, *shape, amplitude=1 / 8) for name, shape in shapes.items()}
    return tensors | {name: ones(HIDDEN) for name in norms}


def _write(folder: Path, config: dict[str, object], tensors: Tensors) -> None:
    folder.mkdir()
    texts = {
        "config.json": config,
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": tokenizer_config(POSITIONS),
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    halves = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
