"""A checkpoint folder by its configuration and the headers of its tensors: what is there, and that it fits together."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights.safetensors_header import Tensor, read_header
from deckard_deploy.weights.strict_json import printable, read_object

INDEX = "model.safetensors.index.json"
# What can run code when a checkpoint is loaded: Python of the repository, and pickles.
RUNS_CODE = (".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder says of itself; tensors by their full name, with the file that holds each."""

    folder: Path
    config: dict[str, Any]
    quantization: dict[str, Any]
    producer: str
    tensors: dict[str, Tensor]
    files: dict[str, Path]

    @property
    def text_config(self) -> dict[str, Any]:
        """Of the language model; a text-only checkpoint has it at the top."""
        found = self.config.get("text_config", self.config)
        return found if isinstance(found, dict) else {}

    def component_bytes(self) -> dict[str, int]:
        """What the tensors take: language, embeddings, vision, audio, as far as there are any."""
        found: Counter[str] = Counter()
        for name, tensor in self.tensors.items():
            found[_component(name)] += tensor.bytes
        return dict(found)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json, hf_quant_config.json, the index and every header. Raises IntegrityError, one line."""
    if not folder.is_dir():
        raise IntegrityError(f"{folder} is not a folder of weights", hint="deckard-deploy pull")
    _refuse_code(folder)
    config = read_object(folder / "config.json")
    if "auto_map" in config:
        raise IntegrityError(f"{folder / 'config.json'}: auto_map asks for code of the repository to be run")
    for key in ("text_config", "vision_config", "audio_config", "quantization_config"):
        if not isinstance(config.get(key, {}), dict | None):
            raise IntegrityError(f"{folder / 'config.json'}: {key} is not an object")
    quantization, producer = _quantization(folder, config)
    tensors: dict[str, Tensor] = {}
    files: dict[str, Path] = {}
    for path, header in _shards(folder):
        twins = tensors.keys() & header.keys()
        if twins:
            name = min(twins)
            raise IntegrityError(f"{path}: tensor {name} is in {files[name].name} too")
        tensors |= header
        files |= dict.fromkeys(header, path)
    return Checkpoint(folder, config, quantization, producer, tensors, files)


def _refuse_code(folder: Path) -> None:
    found = sorted(path.name for path in folder.iterdir() if path.suffix in RUNS_CODE)
    if found:
        name = found[0]
        raise IntegrityError(
            f"{folder}: {printable(name)} could run code when loaded, and safetensors need none",
            # Somebody else chose the name, and a hint is pasted into a shell.
            hint=f"rm {shlex.quote(f'{folder}/{name}')}" if name.isprintable() else f"ls -lb {folder}",
        )


def _quantization(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The quantization as config.json has it, which vLLM prefers, checked against hf_quant_config.json.

    Keys of both: ModelOpt 0.42.0, export/quant_utils.py:743-764 and export/convert_hf_config.py.
    """
    inner = config.get("quantization_config") or {}
    separate = folder / "hf_quant_config.json"
    outer: dict[str, Any] = {}
    producer = inner.get("producer")
    if separate.exists():
        whole = read_object(separate)
        outer = whole.get("quantization", {})
        producer = whole.get("producer", producer)
        if not isinstance(outer, dict) or not isinstance(outer.get("quant_algo"), str):
            raise IntegrityError(f"{separate}: quantization.quant_algo is missing")
    if inner and outer and inner.get("quant_algo") != outer["quant_algo"]:
        said, other = (printable(str(one.get("quant_algo"))[:40]) for one in (outer, inner))
        raise IntegrityError(f"{separate}: quant_algo is {said}, and config.json says {other}")
    named = producer if isinstance(producer, dict) else {}
    return outer | inner, printable(
        " ".join(str(named[key])[:40] for key in ("name", "version") if key in named)
    )


def _shards(folder: Path) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    present = {path.name: path for path in folder.glob("*.safetensors")}
    index = folder / INDEX
    if not index.exists():
        if not present:
            raise IntegrityError(f"{folder}: no safetensors file is there", hint="deckard-deploy pull")
        yield from ((path, read_header(path)) for _, path in sorted(present.items()))
        return
    listed = _listed(index)
    for shard, names in sorted(listed.items()):
        if shard not in present:
            raise IntegrityError(
                f"{index}: {printable(shard)} is listed, and is not there", hint="deckard-deploy pull"
            )
        header = read_header(present[shard])
        different = names ^ header.keys()
        if different:
            raise IntegrityError(
                f"{index}: {printable(min(different))} is not in both {printable(shard)} and the index"
            )
        yield present[shard], header


def _listed(index: Path) -> dict[str, set[str]]:
    """Shard -> its tensors."""
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
    return "language"
