"""Quantize a checkpoint with ModelOpt: run by the Python of ModelOpt's environment, `python -I <this file> JOB.json`.

Nothing else of ours is imported. JOB.json has:

    source      folder of the BF16 checkpoint
    export      folder to create for what ModelOpt writes
    texts       file of the calibration data: a JSON object with `text` or `messages` on each line
    recipe      a RecipeSpec of catalog/specs.py
    device      "cuda:0" or "cpu"

Progress and the result are JSON objects, one a line of stdout: {"phase": …, "done": 0 to 1, "what": …} and, as the
last, {"result": {…}}. Text of the libraries goes to stderr. The process ends when stdin does, because its parent may be
killed.
No code of the checkpoint runs: weights are safetensors, and `trust_remote_code` stays off.
"""

import copy
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch  # type: ignore[import-not-found]
from modelopt.torch import quantization as mtq  # type: ignore[import-not-found]
from modelopt.torch.export import export_hf_checkpoint  # type: ignore[import-not-found]
from safetensors import safe_open
from transformers import (  # type: ignore[import-not-found]
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

# How often a method calls the forward loop (modelopt 0.47.0 torch/quantization/model_calib.py): awq_lite :1577 and
# :1634, awq_clip :1912; svdquant has those of awq_lite and a last one for the largest values.
PASSES = {"max": 1, "awq_lite": 2, "awq_full": 3, "svdquant": 3}
# Norms into which an AWQ export folds the scales of the linears behind them (export/unified_export_hf.py).
FOLDED = {"q_proj": "input_layernorm", "k_proj": "input_layernorm", "v_proj": "input_layernorm"}
FOLDED |= {"gate_proj": "pre_feedforward_layernorm", "up_proj": "pre_feedforward_layernorm"}
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SECONDS_BETWEEN_LINES = 0.5


class Progress:
    """The progress of a phase, on the descriptor that was stdout."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._last = 0.0

    def send(self, message: dict[str, Any]) -> None:
        """Write a line."""
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()

    def show(self, phase: str, done: float, what: str) -> None:
        """Report a phase's progress, at most twice a second unless the phase begins or ends."""
        now = time.monotonic()
        if 0 < done < 1 and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        self.send({"phase": phase, "done": round(done, 4), "what": what})


class Calibration:
    """The forward loop that ModelOpt calls, once for each pass of the method."""

    def __init__(self, samples: list[torch.Tensor], passes: int, progress: Progress) -> None:
        self.samples = samples
        self.passes = passes
        self.finished = 0
        self._progress = progress
        self._sample = 0
        self._layers = 0
        self._hooks: list[Any] = []

    def watch_layers(self, model: torch.nn.Module) -> None:
        """Report each decoder layer as it begins."""
        layers = decoder_layers(model)
        self._layers = len(layers)
        for number, layer in enumerate(layers):
            hook = layer.register_forward_pre_hook(lambda *_, number=number: self._show(number))
            self._hooks.append(hook)

    def end(self) -> None:
        """Report no more layers: an export runs the model too."""
        for hook in self._hooks:
            hook.remove()

    def __call__(self, model: torch.nn.Module) -> None:
        """Send every sample through the model."""
        device = next(model.parameters()).device
        for number, sample in enumerate(self.samples):
            self._sample = number
            with torch.no_grad():
                model(input_ids=sample.to(device), use_cache=False)
        self.finished += 1

    def _show(self, layer: int) -> None:
        samples = self._sample + layer / self._layers
        done = (self.finished + samples / len(self.samples)) / self.passes
        of_pass = f"pass {self.finished + 1} of {self.passes}, text {self._sample + 1} of {len(self.samples)}"
        self._progress.show("calibrate", min(done, 0.999), f"{of_pass}, layer {layer + 1} of {self._layers}")


class LibraryOutput:
    """stdout of the libraries: passed to stderr, and searched for the lines of SVDQuant (model_calib.py:2014)."""

    def __init__(self, progress: Progress, linears: int) -> None:
        self._progress = progress
        self._linears = linears
        self._done = 0

    def write(self, text: str) -> int:
        """Pass the text on."""
        if text.startswith("SVD "):
            self._done += 1
            name = text.removeprefix("SVD ").strip()
            self._progress.show("decompose", min(self._done / self._linears, 1.0), name)
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Pass the flush on."""
        sys.stderr.flush()


def main() -> None:
    """Load, calibrate, export and check; the result is the last line."""
    progress = Progress(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(sys.argv[1]).read_text())
    progress.send({"result": quantize(job, progress)})


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(130)


def quantize(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; return seconds of each phase, versions and the error of each linear."""
    source, export, recipe = Path(job["source"]), Path(job["export"]), job["recipe"]
    torch.manual_seed(recipe["seed"])
    seconds = {}
    began = time.monotonic()
    progress.show("load", 0, source.name)
    # The texts first: one that the template refuses then costs no load of the model.
    samples, tokens = tokenized(source, Path(job["texts"]), recipe["sequence_length"])
    model = load(source, job["device"])
    seconds["load"] = time.monotonic() - began

    began = time.monotonic()
    calibration = Calibration(samples, PASSES[recipe["method"]], progress)
    calibration.watch_layers(model)
    sys.stdout = LibraryOutput(progress, sum(isinstance(each, torch.nn.Linear) for each in model.modules()))
    model = mtq.quantize(model, configuration(recipe), calibration)
    calibration.end()
    seconds["calibrate"] = time.monotonic() - began

    began = time.monotonic()
    progress.show("export", 0, "packing and writing")
    export_hf_checkpoint(model, dtype=torch.bfloat16, export_dir=export)
    seconds["export"] = time.monotonic() - began
    del model

    began = time.monotonic()
    errors = dict(linear_errors(source, export, job["device"], progress))
    seconds["check"] = time.monotonic() - began
    gpu = torch.cuda.is_available() and job["device"] != "cpu"
    return {
        "seconds": {phase: round(each, 1) for phase, each in seconds.items()},
        "texts": len(samples),
        "tokens": tokens,
        "errors": errors,
        "device": torch.cuda.get_device_name(0) if gpu else "cpu",
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "torch": torch.__version__,
    }


def load(source: Path, device: str) -> torch.nn.Module:
    """Return the model in BF16 on the device."""
    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    # A checkpoint of the language model alone has another class than one with a vision tower.
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    model = auto.from_pretrained(
        source,
        config=config,
        dtype=torch.bfloat16,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        device_map=device,
    )
    return model.eval()


def tokenized(source: Path, texts: Path, length: int) -> tuple[list[torch.Tensor], int]:
    """Return the token ids of each text, cut to a length, and their number; chats through the model's own template."""
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    samples, tokens = [], 0
    for line in texts.read_text().splitlines():
        row = json.loads(line)
        if "messages" in row:
            text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(row["text"])["input_ids"]
        ids = ids[:length]
        if ids:
            samples.append(torch.tensor([ids]))
            tokens += len(ids)
    if not samples:
        raise SystemExit("the calibration data gives no token")
    return samples, tokens


def configuration(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return ModelOpt's configuration of a recipe; its four presets differ in the algorithm alone."""
    chosen: dict[str, Any] = copy.deepcopy(mtq.NVFP4_DEFAULT_CFG)
    for pattern in recipe["exclude"]:
        chosen["quant_cfg"].append({"quantizer_name": pattern, "enable": False})
    algorithm = {"method": recipe["method"]}
    for setting in ("alpha_step", "min_clip_ratio", "shrink_step", "lowrank"):
        if recipe[setting] is not None:
            algorithm[setting] = recipe[setting]
    chosen["algorithm"] = algorithm
    return chosen


def decoder_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of the language model."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and name.endswith("layers") and "vision" not in name:
            return list(module)
    raise SystemExit("the model has no decoder layers that this program knows")


def linear_errors(source: Path, export: Path, device: str, progress: Progress) -> Iterator[tuple[str, float]]:
    """Yield each quantized linear with the relative error of its weight, read back from the exported files.

    The error is |W' - W| / |W| (Frobenius), W' as an engine multiplies with it.
    """
    before, after = Tensors(source, device), Tensors(export, device)
    packed = [name.removesuffix("_scale_2") for name in after.names if name.endswith(".weight_scale_2")]
    for number, name in enumerate(sorted(packed)):
        progress.show("check", number / len(packed), name)
        exact = before.read(name).float()
        yield name.removesuffix(".weight"), relative_error(exact, effective_weight(name, before, after))
    progress.show("check", 1, "")


class Tensors:
    """The tensors of a checkpoint folder by name."""

    def __init__(self, folder: Path, device: str) -> None:
        self._device = device
        self._files: dict[str, Path] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as opened:
                self._files |= dict.fromkeys(opened.keys(), file)
        self.names = list(self._files)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor on the device."""
        with safe_open(self._files[name], framework="pt") as opened:
            return opened.get_tensor(name).to(self._device)


def effective_weight(name: str, before: Tensors, after: Tensors) -> torch.Tensor:
    """Return the weight that an exported linear stands for: codes, scales, low-rank part and scale of the input."""
    weight = unpacked(after.read(name), after.read(f"{name}_scale"), after.read(f"{name}_scale_2"))
    prefix, linear = name.removesuffix(".weight").rsplit(".", 1)
    linear_name = f"{prefix}.{linear}"
    low_rank = f"{linear_name}.weight_quantizer._svdquant_lora_"
    if f"{low_rank}a" in after.names:
        weight = weight + after.read(f"{low_rank}b").float() @ after.read(f"{low_rank}a").float()
    if f"{linear_name}.pre_quant_scale" in after.names:
        return weight * after.read(f"{linear_name}.pre_quant_scale").float()
    norm = f"{prefix.rsplit('.', 1)[0]}.{FOLDED.get(linear, '')}.weight"
    if norm in after.names:
        ratio = after.read(norm).float() / before.read(norm).float()
        weight = weight * ratio.nan_to_num(nan=1.0)  # a norm of zero has no ratio, and its channel no input
    return weight


def unpacked(codes: torch.Tensor, scales: torch.Tensor, scale_2: torch.Tensor) -> torch.Tensor:
    """Return the values of NVFP4 codes: two in a byte, the first in the low half; a scale for 16 of a row."""
    values = torch.tensor([*E2M1, *(-value for value in E2M1)], device=codes.device)
    pairs = torch.stack((codes & 0x0F, codes >> 4), dim=-1).flatten(-2).long()
    blocks = values[pairs].unflatten(-1, (-1, 16)) * (scales.float() * scale_2).unsqueeze(-1)
    return blocks.flatten(-2)


def relative_error(exact: torch.Tensor, found: torch.Tensor) -> float:
    """Return |found - exact| / |exact|; 0 for two tensors of zeros."""
    size = torch.linalg.vector_norm(exact)
    return float(torch.linalg.vector_norm(found - exact) / size) if size else float(found.abs().max())


if __name__ == "__main__":
    main()
