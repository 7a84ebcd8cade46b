"""Quantize a folder with llm-compressor: ENGINE/bin/python write_compressed.py SOURCE TARGET SCHEME.

The campaign llm_compressor.py starts it. SCHEME: FP8_DYNAMIC, W4A16, NVFP4A16 or NVFP4, as llm-compressor names them.
NVFP4 quantizes activations too, by the
largest ones of a few prompts.
"""

# llm-compressor, torch and transformers are not in the environment of the tools.
# mypy: ignore-errors

import shutil
import sys
from pathlib import Path

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, Gemma4ForConditionalGeneration

IGNORED = [
    "lm_head",
    "re:.*vision_tower.*",
    "re:.*embed_vision.*",
    "re:.*audio_tower.*",
    "re:.*embed_audio.*",
]
PROMPTS = ("Hello?", "Who are you?", "What is the weather in Paris?", "Tell me more.")


def main(source: Path, target: Path, scheme: str) -> None:
    """Write TARGET with the model's files and the tokenizer's."""
    model = Gemma4ForConditionalGeneration.from_pretrained(source, dtype=torch.bfloat16)
    recipe = QuantizationModifier(targets="Linear", scheme=scheme, ignore=IGNORED)
    if scheme == "NVFP4":
        tokenizer = AutoTokenizer.from_pretrained(source)
        prompts = [dict(tokenizer(prompt, return_tensors="pt")) for prompt in PROMPTS]
        oneshot(model=model, dataset=DataLoader(prompts, batch_size=None), recipe=recipe)
    else:
        oneshot(model=model, recipe=recipe)
    model.save_pretrained(target, save_compressed=True)
    for file in source.iterdir():
        if file.is_file() and not (target / file.name).exists() and file.suffix != ".safetensors":
            shutil.copy(file, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
