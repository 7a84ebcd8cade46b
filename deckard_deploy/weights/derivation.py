"""The model spec of a checkpoint that the catalog does not have, derived from the checkpoint's own files.

A value that the files do not give is left out and named in a warning; none is guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.specs import (
    NO_LAYERS,
    Architecture,
    HubRepository,
    LocalFolder,
    ModelSpec,
    Quantization,
    Serve,
    Task,
)
from deckard_deploy.errors import IntegrityError
from deckard_deploy.system.text import escaped
from deckard_deploy.weights import gemma4_config
from deckard_deploy.weights.chat_template import chat_template
from deckard_deploy.weights.checkpoint import Checkpoint
from deckard_deploy.weights.pooling import task_of_checkpoint

# vLLM 0.19.1 has no model for it (model_executor/models/registry.py); 0.32.0 has (line 414).
UNIFIED = "Gemma4UnifiedForConditionalGeneration"
FAMILY = (*gemma4_config.SERVED, UNIFIED)
# ModelOpt 0.42.0, export/quant_utils.py: quant_algo.
_MODELOPT: dict[str, Quantization] = {
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4_awq",
    "NVFP4_SVD": "nvfp4_svd",
    "FP8": "modelopt_fp8",
}
# vLLM 0.32.0, model_executor/layers/quantization/__init__.py: quant_method.
_METHODS: dict[str, Quantization] = {
    "compressed-tensors": "compressed-tensors",
    "fp8": "fp8",
    "gptq": "gptq",
    "awq": "awq",
}
# The catalog's name of a quantization, by the algorithm or the method that config.json names.
QUANTIZATIONS: dict[str, Quantization] = {"": "none", **_MODELOPT, **_METHODS}
# The keys that vLLM looks for; the smallest value counts (0.32.0, transformers_utils/model_arch_config_convertor.py,
# derive_max_model_len_and_key).
_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Run on vLLM 0.32.0 (docs/validation/2026-11-30-forms.md): without this key it takes the names from the tensors, and
# refuses "some but not all shards" of q, k and v.
_GPTQ_MODULES = "modules_in_block_to_quantize"
# A model this small is a rehearsal: torch.compile takes longer than it saves, as in models/tiny-gemma4.yaml.
_TINY_GB = 0.1
# Before it, negative ids of tokens on the route of embeddings read memory that is not theirs (CVE-2026-93592).
_FIRST_POOLING_RELEASE = "0.28.0"
_SERVES: dict[Task, str] = {"generate": "", "embed": ", serves vectors", "score": ", serves scores"}
_CPU_HEAD_SIZE = 256  # the largest of CPU attention (0.19.1 and 0.32.0, v1/attention/backends/cpu_attn.py)
# Marks of Gemma 4's chat template that the parsers of vLLM look for (0.19.1, reasoning/gemma4_reasoning_parser.py,
# tool_parsers/gemma4_tool_parser.py).
_REASONING = ("<|channel>", "<|think|>")  # the thought itself, or the mark that asks for one
_TOOL_CALL = "<|tool_call>"


@dataclass(frozen=True)
class DerivedModel:
    """A derived spec. origins: the source of each field, by its name. warnings: what could not be derived."""

    spec: ModelSpec
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def derive(
    found: Checkpoint, *, name: str, served_name: str, weights: HubRepository | LocalFolder
) -> DerivedModel:
    """Derive the spec of a checkpoint from config.json, its quantization, its tensors' headers and its template.

    name: of the spec. Raises IntegrityError for a template or a configuration that cannot be read, and for a
    classifier.
    """
    warnings: list[str] = []
    architecture_name = _architecture_name(found.config)
    task = task_of_checkpoint(found.folder, found.config, architecture_name)
    is_gemma = architecture_name in FAMILY and task == "generate"
    architecture = _architecture(found, warnings) if is_gemma else NO_LAYERS
    if task != "generate":
        warnings.append(f"the memory of {architecture_name} is not computed")
    elif not is_gemma:
        warnings.append(
            f"{architecture_name or 'the architecture'} is not Gemma 4: no parsers, and its memory is not computed"
        )
    quantization = _quantization(found.quantization, warnings)
    if quantization == "gptq" and architecture.k_eq_v and not found.quantization.get(_GPTQ_MODULES):
        warnings.append(
            f"config.json: no {_GPTQ_MODULES}: vLLM 0.32.0 does not load GPTQ of layers that have no v_proj without it"
        )
    components = found.component_bytes()
    size_gb = round(sum(components.values()) / 1e9, 3)
    spec = ModelSpec(
        name=name,
        description=f"{architecture_name or 'unknown architecture'}, {quantization} ({size_gb:g} GB){_SERVES[task]}",
        weights=weights,
        size_gb=size_gb,
        component_bytes=components,
        quantization=quantization,
        architecture=architecture,
        context_limit=_context_limit(found, warnings),
        served_name=served_name,
        serve=_serve(found, warnings, size_gb) if is_gemma else _SERVE_OF_TASK[task],
        drafters=_drafters(architecture) if task == "generate" else (),
        served_by=_engines(architecture_name, architecture, task),
    )
    if "tokenizer.json" not in found.other_files:
        warnings.append("tokenizer.json is not there: vLLM may find no tokenizer")
    return DerivedModel(spec, _origins(spec), tuple(warnings))


def _architecture_name(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return ""
    return escaped(str(architectures[0])[:80])


def _architecture(found: Checkpoint, warnings: list[str]) -> Architecture:
    """Return the text tower's numbers; NO_LAYERS, with a warning, where planning cannot know them."""
    try:
        return gemma4_config.architecture(found.text_config)
    except KeyError as error:
        cause = f"text_config lacks {error.args[0]}"
    except (TypeError, ValueError, AttributeError) as error:
        cause = escaped(str(error)[:120])
    warnings.append(f"config.json: {cause}: the memory is not computed")
    return NO_LAYERS


def _quantization(found: Mapping[str, Any], warnings: list[str]) -> Quantization:
    if not found:
        return "none"
    algorithm, method = found.get("quant_algo"), found.get("quant_method")
    if isinstance(algorithm, str) and algorithm in _MODELOPT:
        return _MODELOPT[algorithm]
    if isinstance(method, str) and method in _METHODS:
        return _METHODS[method]
    named = escaped(str(algorithm or method or "without a name")[:40])
    warnings.append(
        f"config.json: quantization {named} is not known here: the engine decides if it can load it"
    )
    return "other"


def _context_limit(found: Checkpoint, warnings: list[str]) -> int | None:
    limits = [found.text_config.get(key) for key in _LENGTHS]
    known = [limit for limit in limits if type(limit) is int and limit > 0]
    if known:
        return min(known)
    warnings.append("config.json: max_position_embeddings is missing: the context limit is not known")
    return None


def _serve(found: Checkpoint, warnings: list[str], size_gb: float) -> Serve:
    """Return the options that each Gemma 4 of the catalog has, as far as the checkpoint supports them."""
    serve: Serve = {}
    if size_gb < _TINY_GB:
        serve["enforce-eager"] = True
    serve |= _NO_VIDEO
    template = chat_template(found.folder)
    if template is None:
        warnings.append("no chat template: vLLM answers /v1/chat/completions with 400")
        return serve
    if any(mark in template for mark in _REASONING):
        serve["reasoning-parser"] = "gemma4"
    else:
        warnings.append(f"the chat template has no {_REASONING[0]}: thinking is not split from the answer")
    if _TOOL_CALL in template:
        serve["tool-call-parser"] = "gemma4"
        serve["enable-auto-tool-choice"] = True
    else:
        warnings.append(f"the chat template has no {_TOOL_CALL}: tools are not called")
    return serve


def _drafters(architecture: Architecture) -> tuple[str, ...]:
    """Return the drafters of the catalog's models with the same text tower; at least `ngram`, which fits all."""
    if architecture.layers:
        for name in listing.names("models"):
            model = library.model(name)
            if model.architecture == architecture and model.drafters:
                return model.drafters
    return ("ngram",)


# A profile's limits are for a chat model: without them vLLM takes those of the checkpoint, and batches as it does for
# vectors.
_OWN_LIMITS: Serve = dict.fromkeys(("max-model-len", "max-num-seqs", "max-num-batched-tokens"))
# A request can lift 0.19.1's limit of frames (CVE-2026-5497), as in models/deckard-31b.yaml. vLLM reads it for a model
# that takes images or video (0.19.1, config/model.py:615), and the tool requires it of every model.
_NO_VIDEO: Serve = {"limit-mm-per-prompt": {"video": 0}}
_SERVE_OF_TASK: dict[Task, Serve] = {
    "generate": _NO_VIDEO,
    "embed": {"runner": "pooling", "convert": "embed", **_OWN_LIMITS},
    "score": {"runner": "pooling", "convert": "classify", **_OWN_LIMITS},
}


def _engines(architecture_name: str, architecture: Architecture, task: Task) -> tuple[str, ...]:
    """Return the engines that can load the architecture; empty if all can, or if nothing is known."""
    names = listing.names("engines")
    usable = []
    for name in names:
        engine = library.engine(name)
        if architecture_name == UNIFIED and engine.vllm_version == "0.19.1":
            continue
        if task != "generate" and not engine.is_at_least(_FIRST_POOLING_RELEASE):
            continue
        if not engine.gpu and max(architecture.head_dim, architecture.global_head_dim) > _CPU_HEAD_SIZE:
            continue
        usable.append(name)
    if usable == names:
        return ()
    return tuple(usable)


def _origins(spec: ModelSpec) -> dict[str, str]:
    origins = {
        "description": "config.json: architectures, quantization_config",
        "size_gb": "the headers of the safetensors files",
        "component_bytes": "the headers of the safetensors files",
        "quantization": "config.json: quantization_config, and hf_quant_config.json",
        "architecture": "config.json: text_config",
        "context_limit": "config.json: max_position_embeddings, or the key that stands for it",
        "served_name": "the name of the folder or repository",
        "serve": "config.json: architectures, modules.json, and the marks in the chat template",
        "drafters": "those of the catalog's models with the same architecture; ngram fits all",
        "served_by": "CPU attention stops at a head size of 256; vLLM's registry of models",
    }
    return {field: source for field, source in origins.items() if field in spec.model_fields_set}


def model_name(text: str) -> str:
    """Return `text` as a name of the catalog's form: a-z, 0-9, '.', '_' and '-', at most 63 characters.

    Raises IntegrityError for a text without any of them.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63]
    if not name:
        raise IntegrityError(f"{escaped(text[:80])}: no name can be made of it", hint="rename the folder")
    return name


def model_file(derived: DerivedModel) -> str:
    """Return the YAML of a derived model: a model file, with the source of each value in a comment."""
    lines = []
    for warning in derived.warnings:
        lines.append(f"# Warning: {warning}")
    for field, value in derived.spec.model_dump(mode="json", exclude_defaults=True).items():
        if field in derived.origins:
            lines.append(f"# {derived.origins[field]}")
        lines.append(yaml.safe_dump({field: value}, sort_keys=False, allow_unicode=True, width=100).rstrip())
    return "\n".join(lines) + "\n"
