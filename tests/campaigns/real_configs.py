"""Real config.json files: the derived spec against what vLLM reads: python -m tests.campaigns.real_configs PYTHON.

PYTHON: of an engine, as ENGINE/bin/python. real_configs.yaml has the numbers of the files and their sources. Each
becomes a folder with one small tensor, which is derived here and read there. Prints a row for each, and exits with 1
if a spec differs from what the engine reads, or if a refusal is not one line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from deckard_deploy.catalog.specs import LocalFolder, ModelSpec
from deckard_deploy.errors import IntegrityError
from deckard_deploy.planning.memory.settings import CacheSettings, layers_of
from deckard_deploy.weights.checkpoint import read_checkpoint
from deckard_deploy.weights.derivation import derive

UNKNOWN = "unknown architecture"
TABLE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Row:
    """A real configuration: where it was read, what we derive, and what the engine reads."""

    source: str
    ours: str
    theirs: str
    different: tuple[str, ...] = ()


def write(folder: Path, facts: dict[str, Any]) -> Path:
    """Write a model folder with these numbers."""
    folder.mkdir()
    config = dict(facts)
    if "text_config" in config:
        text = dict(config["text_config"])
        period = text.pop("layer_period")
        text["layer_types"] = [
            "full_attention" if number % period == 0 else "sliding_attention"
            for number in range(1, text["num_hidden_layers"] + 1)
        ]
        config["text_config"] = text
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"w": np.zeros(4, np.float32)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def derived(folder: Path) -> ModelSpec | str:
    """Return the derived spec, or the line that refuses the folder."""
    try:
        found = read_checkpoint(folder)
        weights = LocalFolder(folder=str(folder))
        return derive(found, name="mine", served_name="mine", weights=weights).spec
    except IntegrityError as error:
        return error.message


def differences(spec: ModelSpec, theirs: dict[str, Any]) -> list[str]:
    """Return each number that the two read differently."""
    shape = spec.architecture
    pairs: dict[str, tuple[Any, Any]] = {
        "architecture": (spec.description.split(",")[0], theirs["architecture"]),
        "context": (spec.context_limit, theirs["context"]),
    }
    if shape.layers:
        by_layer = [
            [
                "full_attention" if (number + 1) % period(spec) == 0 else "sliding_attention",
                shape.global_head_dim if (number + 1) % period(spec) == 0 else shape.head_dim,
                shape.global_kv_heads if (number + 1) % period(spec) == 0 else shape.kv_heads,
            ]
            for number in range(shape.layers)
        ]
        pairs |= {
            "layers": (shape.layers, theirs["layers"]),
            "hidden": (shape.hidden_size, theirs["hidden"]),
            "heads": (shape.attention_heads, theirs["heads"]),
            "vocabulary": (shape.vocabulary_size, theirs["vocabulary"]),
            "experts": (shape.experts, theirs["experts"]),
            "experts per token": (shape.experts_per_token, theirs["experts_per_token"]),
            "window": (shape.sliding_window, theirs["window"]),
            "shared": (shape.kv_shared_layers, theirs["shared"]),
            "per-layer input": (shape.per_layer_input_size, theirs["per_layer"]),
            "layers one by one": (by_layer, theirs["by_layer"]),
        }
    return [f"{name}: {ours} and {other}" for name, (ours, other) in pairs.items() if ours != other]


def period(spec: ModelSpec) -> int:
    """Return the number of layers from one of full attention to the next."""
    return spec.architecture.layers // (spec.architecture.layers - spec.architecture.sliding_layers)


def cached_layers(spec: ModelSpec) -> int:
    """Return the number of layers that keep a KV cache, as the plan counts them."""
    settings = CacheSettings(
        max_model_len=1024,
        max_num_seqs=1,
        in_flight=1024,
        block_size=16,
        element_bytes=2,
        tensor_parallel=1,
        hybrid=True,
    )
    return len(layers_of(spec.architecture, settings))


def row(source: str, ours: ModelSpec | str, theirs: dict[str, Any]) -> Row:
    """Compare one configuration."""
    said = theirs.get("refused", "")
    read = said or f"{theirs['architecture']}, {theirs['context']} tokens"
    if isinstance(ours, str):
        lines = () if ours.isprintable() else ("not one line",)
        return Row(source, f"refused: {ours.partition('config.json: ')[2] or ours}", read, lines)
    told = f"{ours.description.split(',')[0]}, {ours.context_limit} tokens"
    if ours.architecture.layers:
        told += f", {ours.architecture.layers} layers ({cached_layers(ours)} cached)"
    if said:
        return Row(source, told, f"refused: {said}")
    if ours.description.startswith(
        UNKNOWN
    ):  # transformers fills such a file with the defaults of its model_type
        return Row(source, told, read)
    return Row(source, told, read, tuple(differences(ours, theirs)))


def rows(python: str) -> list[Row]:
    """Derive all configurations, and have the engine read them."""
    table = yaml.safe_load(TABLE.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        folders = [write(Path(scratch) / str(number), entry["facts"]) for number, entry in enumerate(table)]
        program = Path(__file__).with_name("read_configs.py")
        done = subprocess.run(
            [python, program],
            input=json.dumps(list(map(str, folders))),
            capture_output=True,
            text=True,
            check=False,
        )
        if "\n@@" not in done.stdout:
            raise SystemExit(done.stderr[-4000:])
        answers = json.loads(done.stdout.rpartition("\n@@")[2])
        return [
            row(entry["source"], derived(folder), theirs)
            for entry, folder, theirs in zip(table, folders, answers, strict=True)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python")
    found = rows(parser.parse_args().python)
    for one in found:
        print(f"| {one.source} | {one.ours} | {one.theirs} | {'; '.join(one.different) or 'equal'} |")
    different = [one for one in found if one.different]
    print(f"{len(found)} configurations, {len(different)} different")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
