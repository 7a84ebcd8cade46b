"""The configuration of Gemma 4 in both of its forms, checked for consistency and against the tensors.

The older form has global_head_dim and num_global_key_value_heads. A newer transformers writes
per_layer_config, the exceptions by layer ("05": {"head_dim": 512, "num_key_value_heads": 4}) (transformers
5.23, Gemma4TextConfig). num_global_key_value_heads applies where attention_k_eq_v is set (vLLM 0.19.1
models/gemma4.py:459-470).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deckard_deploy.catalog.specs import Architecture
from deckard_deploy.weights.safetensors_header import Tensor

SERVED = ("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM")  # vLLM 0.19.1 models/registry.py
_LARGEST_COUNT = 2**31 - 1  # far above any model; larger ones would only overflow in planning
_KINDS = ("sliding_attention", "full_attention")


@dataclass(frozen=True)
class Layer:
    """The attention of one layer: its kind, its heads and their size in elements."""

    kind: str
    heads: int
    kv_heads: int
    head_dim: int


def layers(text: Mapping[str, Any]) -> list[Layer]:
    """Return one entry per layer, from either form.

    Raises KeyError, TypeError, ValueError or AttributeError for an invalid configuration.
    """
    kinds = text["layer_types"]
    if len(kinds) != _positive(text["num_hidden_layers"]):
        raise ValueError(f"layer_types has {len(kinds)} entries for {text['num_hidden_layers']} layers")
    unknown = next((kind for kind in kinds if kind not in _KINDS), None)
    if unknown is not None:
        raise ValueError(f"layer type {str(unknown)[:40]!r} is not known")
    per_layer = text.get("per_layer_config") or {}
    exceptions = {int(layer): change for layer, change in per_layer.items()}
    return [_layer(text, kind, exceptions.get(number)) for number, kind in enumerate(kinds)]


def architecture(text: Mapping[str, Any]) -> Architecture:
    """Return the numbers of the text tower that planning needs.

    Raises KeyError for a missing key, ValueError for a layout that planning does not know, and the errors of `layers`.
    """
    found = layers(text)
    sliding = [layer for layer in found if layer.kind == "sliding_attention"]
    full = [layer for layer in found if layer.kind == "full_attention"]
    if not sliding or not full or len(set(sliding)) > 1 or len(set(full)) > 1:
        raise ValueError("the layers are not of one sliding and one full kind")
    period = len(found) // len(full)
    kinds = [
        "full_attention" if number % period == 0 else "sliding_attention"
        for number in range(1, len(found) + 1)
    ]
    if [layer.kind for layer in found] != kinds:
        raise ValueError(f"layer_types is not one full layer after every {period - 1} sliding ones")
    shared = _count(text.get("num_kv_shared_layers"))
    if shared > len(found) - period:  # a shared layer reuses the cache of an earlier layer of its kind
        raise ValueError(f"num_kv_shared_layers is {shared}, of {len(found)} layers")
    moe = bool(text.get("enable_moe_block"))
    experts = _positive(text["num_experts"]) if moe else 0
    experts_per_token = _positive(text["top_k_experts"]) if moe else 0
    if experts_per_token > experts:
        raise ValueError(f"top_k_experts is {experts_per_token}, of {experts} experts")
    return Architecture(
        layers=len(found),
        sliding_layers=len(sliding),
        sliding_window=_positive(text["sliding_window"]),
        hidden_size=_positive(text["hidden_size"]),
        attention_heads=sliding[0].heads,
        kv_heads=sliding[0].kv_heads,
        global_kv_heads=full[0].kv_heads,
        head_dim=sliding[0].head_dim,
        global_head_dim=full[0].head_dim,
        kv_shared_layers=shared,
        k_eq_v=bool(text.get("attention_k_eq_v")),
        intermediate_size=_positive(text["intermediate_size"]),
        vocabulary_size=_positive(text["vocab_size"]),
        per_layer_input_size=_count(text.get("hidden_size_per_layer_input")),
        experts=experts,
        experts_per_token=experts_per_token,
        expert_intermediate_size=_positive(text["moe_intermediate_size"]) if moe else 0,
    )


def _count(value: Any) -> int:  # noqa: ANN401  the file may hold any type
    return _positive(value) if value else 0


def _layer(text: Mapping[str, Any], kind: str, exception: Mapping[str, Any] | None) -> Layer:
    head_dim, kv_heads = text["head_dim"], text["num_key_value_heads"]
    if exception is not None:
        head_dim = exception.get("head_dim", head_dim)
        kv_heads = exception.get("num_key_value_heads", kv_heads)
    elif kind == "full_attention":
        head_dim = text.get("global_head_dim") or head_dim
        if text.get("attention_k_eq_v"):
            kv_heads = text.get("num_global_key_value_heads") or kv_heads
    return Layer(kind, _positive(text["num_attention_heads"]), _positive(kv_heads), _positive(head_dim))


def _positive(value: Any) -> int:  # noqa: ANN401  the file may hold any type
    if type(value) is not int or not 1 <= value <= _LARGEST_COUNT:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value


def faults(text: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield one line for each contradiction within the configuration or between it and the tensors."""
    try:
        found = layers(text)
        vocabulary, hidden = _positive(text["vocab_size"]), _positive(text["hidden_size"])
    except KeyError as error:
        yield f"config.json: text_config lacks {error.args[0]}"
        return
    except (TypeError, ValueError, AttributeError) as error:
        yield f"config.json: {error}"
        return
    prefix = _language_prefix(tensors)
    if prefix is None:
        yield "the token embedding is not there"
        return
    embedding = tensors[f"{prefix}embed_tokens.weight"]
    if embedding.shape != (vocabulary, hidden):
        shape = list(embedding.shape)
        yield f"the token embedding is {shape}, and config.json says [{vocabulary}, {hidden}]"
    for number, layer in enumerate(found):
        yield from _layer_faults(prefix, number, layer, tensors)


def _language_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the prefix of the language model's tensor names; None if there is no token embedding."""
    for name in tensors:
        if name.endswith("embed_tokens.weight"):
            return name.removesuffix("embed_tokens.weight")
    return None


def _layer_faults(prefix: str, number: int, layer: Layer, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for linear, heads in (("q_proj", layer.heads), ("k_proj", layer.kv_heads)):
        name = f"{prefix}layers.{number}.self_attn.{linear}"
        weight = tensors.get(f"{name}.weight", tensors.get(f"{name}.weight_packed"))
        if weight is None:
            if linear == "q_proj" and f"{name}.qweight" not in tensors:  # of gptq and awq, in another order
                yield f"layer {number} has no q_proj"
        elif weight.shape[:1] != (heads * layer.head_dim,):
            rows = weight.shape[0] if weight.shape else "no"
            expected = f"{heads} heads of {layer.head_dim}"
            yield f"layer {number}: {linear} has {rows} rows, and config.json says {expected}"
