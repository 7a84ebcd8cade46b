"""A checkpoint folder: its configuration and the headers of its tensors, checked for consistency."""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.errors import IntegrityError
from deckard_deploy.system.text import escaped
from deckard_deploy.weights.safetensors_header import Tensor, read_header
from deckard_deploy.weights.strict_json import read_object

INDEX = "model.safetensors.index.json"
# Files from which transformers may learn of code to run (auto_map), for the tokenizer and the processors too.
_CONFIGURATIONS = (
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
# Files that can run code when a checkpoint is loaded: Python modules and pickles.
CODE_SUFFIXES = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint folder.

    tensors, files: the header entry and the file of each tensor, by its full name.
    """

    folder: Path
    config: dict[str, Any]
    quantization: dict[str, Any]
    producer: str
    tensors: dict[str, Tensor]
    files: dict[str, Path]

    @property
    def text_config(self) -> dict[str, Any]:
        """The configuration of the language model; a text-only checkpoint has it at the top level."""
        found = self.config.get("text_config", self.config)
        return found if isinstance(found, dict) else {}

    @property
    def other_files(self) -> frozenset[str]:
        """The names of all files in the folder."""
        return frozenset(path.name for path in self.folder.iterdir() if path.is_file())

    def component_bytes(self) -> dict[str, int]:
        """Return the size of the tensors in bytes by component: a key of ModelSpec.component_bytes."""
        sizes: Counter[str] = Counter()
        for name, tensor in self.tensors.items():
            sizes[_component(name)] += tensor.bytes
        return dict(sizes)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json, hf_quant_config.json, the index and every header. Raises IntegrityError, one line."""
    if not folder.is_dir():
        raise IntegrityError(f"{folder} is not a folder of weights", hint="deckard-deploy pull")
    _refuse_code(folder)
    names = {path.name for path in folder.glob("*.safetensors")}
    return assemble_checkpoint(folder, names, lambda name: read_header(folder / name))


def assemble_checkpoint(
    folder: Path, shards: Collection[str], header: Callable[[str], dict[str, Tensor]]
) -> Checkpoint:
    """Return the checkpoint whose configuration is in `folder`. Raises IntegrityError, one line.

    shards: the names of the safetensors files that exist, here or on the hub. header: reads the header of one.
    """
    config = _read_config(folder)
    quantization, producer = _quantization(folder, config)
    tensors: dict[str, Tensor] = {}
    files: dict[str, Path] = {}
    for path, found in _shards(folder, shards, header):
        duplicates = tensors.keys() & found.keys()
        if duplicates:
            name = min(duplicates)
            raise IntegrityError(f"{path}: tensor {name} is in {files[name].name} too")
        tensors |= found
        files |= dict.fromkeys(found, path)
    return Checkpoint(folder, config, quantization, producer, tensors, files)


def _refuse_code(folder: Path) -> None:
    found = sorted(path.name for path in folder.iterdir() if path.suffix in CODE_SUFFIXES)
    if not found:
        return
    name = found[0]
    # A hint is pasted into a shell, and the name comes from the repository.
    hint = f"ls -lb {folder}"
    if name.isprintable():
        hint = f"rm {shlex.quote(f'{folder}/{name}')}"
    raise IntegrityError(
        f"{folder}: {escaped(name)} could run code when loaded, and safetensors need none", hint=hint
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_object(path)
    _refuse_auto_map(path, config)
    refuse_code_requests(folder)
    for key in ("text_config", "vision_config", "audio_config", "quantization_config"):
        if not isinstance(config.get(key, {}), dict | None):
            raise IntegrityError(f"{path}: {key} is not an object")
    return config


def refuse_code_requests(folder: Path) -> None:
    """Raise IntegrityError if a configuration of tokenizer, processors or generation has an auto_map."""
    for name in _CONFIGURATIONS:
        path = folder / name
        if path.exists():
            _refuse_auto_map(path, read_object(path))


def _refuse_auto_map(path: Path, content: dict[str, Any]) -> None:
    """Raise IntegrityError for auto_map at any depth: vLLM loaded such code in spite of its own setting.

    CVE-2025-66448 (the auto_map of a vision_config), CVE-2026-90553.
    """
    remaining: list[Any] = [content]
    while remaining:
        value = remaining.pop()
        if isinstance(value, list):
            remaining += value
        elif isinstance(value, dict):
            if "auto_map" in value:
                raise IntegrityError(f"{path}: auto_map asks for code of the repository to be run")
            remaining += value.values()


def _quantization(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the quantization and its producer.

    config.json, which vLLM prefers, is checked against hf_quant_config.json.
    Keys of both: ModelOpt 0.42.0, export/quant_utils.py:743-764 and export/convert_hf_config.py.
    """
    inner = config.get("quantization_config") or {}
    separate = folder / "hf_quant_config.json"
    outer: dict[str, Any] = {}
    producer = inner.get("producer")
    if separate.exists():
        content = read_object(separate)
        outer = content.get("quantization", {})
        producer = content.get("producer", producer)
        if not isinstance(outer, dict) or not isinstance(outer.get("quant_algo"), str):
            raise IntegrityError(f"{separate}: quantization.quant_algo is missing")
    if inner and outer and inner.get("quant_algo") != outer["quant_algo"]:
        outer_algo, inner_algo = _short_algorithm(outer), _short_algorithm(inner)
        raise IntegrityError(f"{separate}: quant_algo is {outer_algo}, and config.json says {inner_algo}")
    return outer | inner, _producer_text(producer)


def _short_algorithm(quantization: dict[str, Any]) -> str:
    return escaped(str(quantization.get("quant_algo"))[:40])


def _producer_text(producer: object) -> str:
    """Return "NAME VERSION", or the one of the two that is present."""
    if not isinstance(producer, dict):
        return ""
    words = []
    for key in ("name", "version"):
        if key in producer:
            words.append(str(producer[key])[:40])
    return escaped(" ".join(words))


def _shards(
    folder: Path, present: Collection[str], header: Callable[[str], dict[str, Tensor]]
) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """Yield every safetensors file with its header; the files of the index if there is one."""
    index = folder / INDEX
    if not index.exists():
        if not present:
            raise IntegrityError(f"{folder}: no safetensors file is there", hint="deckard-deploy pull")
        for name in sorted(present):
            yield folder / name, header(name)
        return
    for shard, names in sorted(_indexed_tensors(index).items()):
        if shard not in present:
            raise IntegrityError(
                f"{index}: {escaped(shard)} is listed, and is not there", hint="deckard-deploy pull"
            )
        found = header(shard)
        different = names ^ found.keys()
        if different:
            raise IntegrityError(
                f"{index}: {escaped(min(different))} is not in both {escaped(shard)} and the index"
            )
        yield folder / shard, found


def _indexed_tensors(index: Path) -> dict[str, set[str]]:
    """Return the tensor names of each shard in the index."""
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise IntegrityError(f"{index}: weight_map is missing")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise IntegrityError(
                f"{index}: {str(shard)[:80]!r} is no name of a safetensors file in this folder"
            )
        shards.setdefault(shard, set()).add(name)
    return shards


def _component(name: str) -> str:
    if any(part in name for part in ("vision_tower", "embed_vision", "multi_modal_projector")):
        return "vision"
    if "audio" in name:
        return "audio"
    if "embed_tokens" in name or name.startswith("lm_head"):
        return "embeddings"
    if ".experts." in name:
        return "experts"
    return "language"
