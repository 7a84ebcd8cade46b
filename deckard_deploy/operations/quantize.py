"""`quantize`: a checkpoint in four bits from one in BF16, by ModelOpt in an environment of its own."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.specs import RecipeSpec
from deckard_deploy.doctor.facts import Gpu, HostFacts
from deckard_deploy.errors import BadInputError, DoesNotFitError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.operations.derived_models import refuse_odd_files
from deckard_deploy.operations.host import quick_host_facts
from deckard_deploy.operations.inspect import checkpoint_folder
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.memory.settings import GIB
from deckard_deploy.quantizing.calibration import CalibrationData, read_calibration
from deckard_deploy.quantizing.needs import Needs, needs_of, quantized_linears
from deckard_deploy.quantizing.report import CARD, REPORT, Made, as_json, card
from deckard_deploy.quantizing.worker import ProgressLines, run_worker
from deckard_deploy.resources import tool_version
from deckard_deploy.running.layout import StateDir, state_directory
from deckard_deploy.running.process import environment
from deckard_deploy.running.process.locks import QUANTIZERS
from deckard_deploy.system.files import (
    clear_leftovers_of,
    private_folder,
    remove_folder,
    temporary_prefix,
    translating_write_errors,
)
from deckard_deploy.system.meminfo import MEMINFO, total_and_available
from deckard_deploy.system.text import escaped
from deckard_deploy.system.versions import version_numbers
from deckard_deploy.weights import gemma4_config, repaired_folder
from deckard_deploy.weights.chat_template import chat_template
from deckard_deploy.weights.checkpoint import Checkpoint, read_checkpoint
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.inspection import file_faults
from deckard_deploy.weights.repaired_folder import RepairedFolder
from deckard_deploy.weights.scales import ScaleRepair, require_repairs

MODELOPT = "0.47.0"
LOG = "quantize.log"  # in the state directory: what the libraries of the last run printed
_WEIGHTS = ("BF16", "F16", "F32")
# Triton's NVFP4 kernel (modelopt 0.47.0 torch/quantization/tensor_quant.py:176); below it ModelOpt compiles a CUDA
# extension of its own at the first use, which nobody has run here.
_SEARCH_SINCE = "8.9"
# A linear whose error is larger was not packed by the rule by which an engine unpacks it: NVFP4 of random weights has
# an error of 0.09 to 0.13 (docs/validation/2026-12-01-quantize.md).
LARGEST_ERROR = 0.5
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class QuantizePlan:
    """What `quantize` would do. device: "cuda:0" or "cpu"; memory: its free bytes."""

    source: str
    output: str
    recipe: RecipeSpec
    data: CalibrationData
    device: str
    memory: int
    needs: Needs
    linears: int


def recipes() -> list[RecipeSpec]:
    """Return the built-in recipes."""
    return [library.recipe(name) for name in listing.names("recipes")]


def read_recipe(named: str) -> RecipeSpec:
    """Return a recipe by name, or from a YAML file. Raises BadInputError."""
    if named.endswith((".yaml", ".yml")):
        return library.recipe_from_file(Path(named).expanduser())
    return library.recipe(named)


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest:
    """The arguments of `quantize`. samples: in place of the recipe's number."""

    source: str
    recipe: str
    calibrate: str
    samples: int | None
    output: Path


def plan_quantization(
    asked: QuantizeRequest, state_dir: Path | None, *, facts: HostFacts | None = None, meminfo: Path = MEMINFO
) -> QuantizePlan:
    """Check everything that can be checked before the first download, and return what would be done.

    facts: of this machine; None: read. Raises BadInputError, IntegrityError, EnvironmentUnfitError, DoesNotFitError.
    """
    repaired_folder.require_new(asked.output)
    recipe = read_recipe(asked.recipe)
    if asked.samples is not None:
        recipe = recipe.model_copy(update={"samples": asked.samples})
    directory = state_directory(state_dir)
    found = _read_source(checkpoint_folder(asked.source, directory), asked.output, recipe)
    data = read_calibration(
        asked.calibrate, samples=recipe.samples, sequence_length=recipe.sequence_length, seed=recipe.seed
    )
    if data.has_chats and chat_template(found.folder) is None:
        raise BadInputError(
            f"{asked.calibrate} has chats, and {found.folder} has no chat template",
            hint="add the model's chat_template.jinja, or calibrate with texts",
        )
    device, memory = _device(recipe, facts or quick_host_facts(), meminfo)
    shapes = {name: tensor.shape for name, tensor in found.tensors.items()}
    needs = needs_of(shapes, recipe, int(found.text_config.get("vocab_size") or 0))
    linears = len(quantized_linears(shapes, recipe))
    if not linears:
        raise BadInputError(
            f"recipe {recipe.name} excludes every linear of {found.folder}",
            hint="fewer patterns in `exclude`",
        )
    _require_memory(needs, device, memory)
    _require_space(asked.output, needs)
    environment.require_installable(_environment(directory, device), QUANTIZERS[_environment_name(device)])
    return QuantizePlan(
        source=str(found.folder.absolute()),
        output=str(asked.output.absolute()),
        recipe=recipe,
        data=data,
        device=device,
        memory=memory,
        needs=needs,
        linears=linears,
    )


def quantize(plan: QuantizePlan, state_dir: Path | None, report: Reporter) -> dict[str, Any]:
    """Install ModelOpt if it is not there, quantize, and write the new checkpoint. Return its report.

    The output is complete or does not exist. Raises as `plan_quantization` does, and IntegrityError for a result that
    does not stand for the source's weights.
    """
    directory = state_directory(state_dir)
    private_folder(directory.root)
    installed = environment.install(
        _environment(directory, plan.device), lock=QUANTIZERS[_environment_name(plan.device)], say=report.say
    )
    with _scratch_beside(Path(plan.output)) as scratch:
        plan.data.write(scratch / "texts.jsonl")
        job = scratch / "job.json"
        job.write_text(
            json.dumps(
                {
                    "source": plan.source,
                    "export": str(scratch / "export"),
                    "texts": str(scratch / "texts.jsonl"),
                    "recipe": plan.recipe.model_dump(mode="json"),
                    "device": plan.device,
                }
            )
        )
        result = run_worker(installed.python, job, directory.root / LOG, ProgressLines(report.say))
        return _assemble(plan, result, scratch, report)


def _read_source(folder: Path, output: Path, recipe: RecipeSpec) -> Checkpoint:
    refuse_odd_files(folder)
    if output.resolve().is_relative_to(folder.resolve()):
        raise BadInputError(f"{output} is inside of {folder}, which is never written to", hint="-o FOLDER")
    found = read_checkpoint(folder)
    architectures = found.config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else ""
    if architecture not in gemma4_config.SERVED:
        raise BadInputError(
            f"{folder}: architecture {escaped(str(architecture)[:80])!r} is not Gemma 4, which alone is quantized here"
        )
    if found.quantization:
        algorithm = found.quantization.get("quant_algo") or found.quantization.get("quant_method")
        raise BadInputError(
            f"{folder} is quantized already ({escaped(str(algorithm)[:40])})",
            hint="quantize the checkpoint in BF16 that it was made of",
        )
    if found.text_config.get("enable_moe_block"):
        raise BadInputError(
            f"{folder} has experts: with recipe {recipe.name} nobody has run such a model",
            hint="a dense Gemma 4",
        )
    other = sorted({tensor.dtype for tensor in found.tensors.values()} - set(_WEIGHTS))
    if other:
        raise BadInputError(f"{folder}: has tensors of {', '.join(other)}; BF16, F16 or F32 were expected")
    for fault in (*file_faults(found), *gemma4_config.faults(found.text_config, found.tensors)):
        raise IntegrityError(f"{folder}: {fault}", hint=f"deckard-deploy inspect {folder}")
    return found


def _device(recipe: RecipeSpec, facts: HostFacts, meminfo: Path) -> tuple[str, int]:
    """Return the device and its free bytes. Raises EnvironmentUnfitError if the recipe needs another one."""
    available = total_and_available(meminfo)[1]
    gpu = _visible_gpu(facts.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if gpu is None:
        if recipe.needs_cuda:
            raise EnvironmentUnfitError(
                f"recipe {recipe.name} needs a CUDA GPU, and this machine has none that nvidia-smi lists",
                hint="recipe nvfp4 runs without one, or use a machine with a GPU",
            )
        return "cpu", available
    capability = gpu.compute_capability
    if recipe.needs_cuda and capability and version_numbers(capability) < version_numbers(_SEARCH_SINCE):
        raise EnvironmentUnfitError(
            f"recipe {recipe.name} needs a GPU of compute capability {_SEARCH_SINCE} or later, and {gpu.name} has "
            f"{capability}",
            hint="recipe nvfp4, or a newer GPU",
        )
    if gpu.memory_total_mib is None:  # unified memory
        return "cuda:0", available
    return "cuda:0", (gpu.memory_total_mib - (gpu.memory_used_mib or 0)) << 20


def _visible_gpu(gpus: Sequence[Gpu], visible: str | None) -> Gpu | None:
    """Return the GPU that the worker's cuda:0 is; None without one.

    visible: CUDA_VISIBLE_DEVICES, which the worker gets too.
    """
    if visible is None:
        return gpus[0] if gpus else None
    first = visible.split(",")[0].strip()
    if not first or first == "-1":
        return None
    if not first.isdigit() or int(first) >= len(gpus):
        raise BadInputError(
            f"CUDA_VISIBLE_DEVICES {escaped(visible[:80])!r}: a number of one of {len(gpus)} GPUs was expected first",
            hint="CUDA_VISIBLE_DEVICES=0 deckard-deploy quantize",
        )
    return gpus[int(first)]


def _require_memory(needs: Needs, device: str, free: int) -> None:
    if needs.memory <= free:
        return
    where = "GPU 0" if device != "cpu" else "this machine"
    enough = []
    for name in listing.names("profiles"):
        hardware = library.profile(name).hardware
        if hardware.memory_gib and hardware.memory_gib * GIB >= needs.memory:
            enough.append(name)
    hint = f"a machine with {math.ceil(needs.memory / GIB)} GiB free"
    if enough:
        hint += f", such as {', '.join(enough[:6])}"
    raise DoesNotFitError(
        f"quantizing needs {needs.memory / GIB:.1f} GiB ({needs.weights / GIB:.1f} of weights in BF16, about "
        f"{needs.working / GIB:.1f} to work), and {where} has {free / GIB:.1f} GiB free",
        hint=hint,
    )


def _require_space(output: Path, needs: Needs) -> None:
    """Raise EnvironmentUnfitError without space for ModelOpt's export and the checkpoint that is made of it."""
    need, free = 2 * needs.written, shutil.disk_usage(output.parent).free
    if need > free:
        raise EnvironmentUnfitError(
            f"{output.parent}: needs {need:,} bytes for the export and its finished copy, and {free:,} are free",
            hint=f"free {need - free:,} bytes there",
        )


def _environment_name(device: str) -> str:
    return f"modelopt-{MODELOPT}-{'cpu' if device == 'cpu' else 'cuda'}"


def _environment(directory: StateDir, device: str) -> Path:
    return directory.engines / _environment_name(device)


@contextmanager
def _scratch_beside(output: Path) -> Iterator[Path]:
    """Yield a hidden folder next to the output, which is gone afterwards; one of a killed run goes first."""
    with translating_write_errors(output):
        clear_leftovers_of(output)
        scratch = Path(tempfile.mkdtemp(prefix=f"{temporary_prefix()}{output.name}-", dir=output.parent))
    try:
        with translating_write_errors(output):
            yield scratch
    finally:
        remove_folder(scratch)


def _assemble(
    plan: QuantizePlan, result: Mapping[str, Any], scratch: Path, report: Reporter
) -> dict[str, Any]:
    """Check what ModelOpt wrote, complete it with the source's files, and move it to its place."""
    source, export = read_checkpoint(Path(plan.source)), scratch / "export"
    config = dict(source.config)
    config["quantization_config"] = json.loads((export / "config.json").read_text())["quantization_config"]
    finished = scratch / "finished"
    finished.mkdir()
    _write_json(finished / "config.json", config)
    files = {path.name: path for path in source.folder.iterdir() if _is_companion(path)}
    files |= {path.name: path for path in export.iterdir() if path.suffix == ".safetensors"}
    for name in ("hf_quant_config.json", _INDEX):
        if (export / name).exists():
            files[name] = export / name
    files["config.json"] = finished / "config.json"
    made = _view(scratch / "view", files)
    _require_right(source, made, result["errors"])
    scales = require_repairs(made, before="ModelOpt exported ", hint="more calibration texts")
    repaired = {
        "found": sum(len(scale.patches) for scale in scales),
        "set_to_zero": sum(scale.zeroed for scale in scales),
    }
    record = Made(
        source=_identity(source.folder),
        recipe=plan.recipe,
        data=plan.data,
        result=result,
        versions={"deckard-deploy": tool_version(), "modelopt": MODELOPT},
        bytes_before=sum(tensor.bytes for tensor in source.tensors.values()),
        bytes_after=sum(tensor.bytes for tensor in made.tensors.values()),
        repaired=repaired,
    )
    written = as_json(record)
    _write_json(finished / REPORT, written)
    (finished / CARD).write_text(card(Path(plan.output).name, record))
    files |= {name: finished / name for name in (REPORT, CARD)}
    report.say(f"quantize write: {plan.output}")
    scales = tuple(_of_file(scale, files) for scale in scales)
    repaired_folder.write(
        Path(plan.output), RepairedFolder(files, scales, f"quantization of {source.folder.name}")
    )
    return written


def _of_file(scale: ScaleRepair, files: Mapping[str, Path]) -> ScaleRepair:
    """Return the repair with the file itself in place of its link in the view."""
    return scale._replace(file=files[scale.file.name])


def _is_companion(path: Path) -> bool:
    """Return True for what the source has next to its weights: tokenizer, template, processor, generation settings."""
    if not path.is_file() or path.name.startswith("."):
        return False
    return path.suffix in (".json", ".jinja", ".model") and path.name not in (_INDEX, "tiny-gemma4.json")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _view(folder: Path, files: Mapping[str, Path]) -> Checkpoint:
    """Read the checkpoint as it will be, through links."""
    folder.mkdir()
    for name, path in files.items():
        (folder / name).symlink_to(path.resolve())
    return read_checkpoint(folder)


def _require_right(source: Checkpoint, made: Checkpoint, errors: Mapping[str, float]) -> None:
    """Raise IntegrityError if a tensor of the source is missing, or a linear stands for other weights."""
    missing = source.tensors.keys() - made.tensors.keys()
    if source.text_config.get("tie_word_embeddings") or source.config.get("tie_word_embeddings"):
        missing -= {"lm_head.weight"}
    if missing:
        raise IntegrityError(
            f"ModelOpt exported {len(missing)} tensors too few, such as {escaped(min(missing))}"
        )
    for linear, error in errors.items():
        if not error <= LARGEST_ERROR:  # NaN too
            raise IntegrityError(
                f"{escaped(linear)}: the exported weight differs from the source by {error:.2f} of its size",
                hint="another recipe; nothing was written",
            )


def _identity(folder: Path) -> dict[str, str | None]:
    manifest = ModelFolder(folder).manifest()
    return {
        "name": folder.resolve().name,
        "repo": manifest.repo if manifest else None,
        "commit": manifest.commit if manifest else None,
        "config_sha256": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest(),
    }
