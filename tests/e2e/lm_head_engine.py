"""Start vLLM on a tiny checkpoint with the plugin that quantizes lm_head, ask it with three heads, and print JSON.

argv: a checkpoint's folder, `+`, and the folder of what drafts for it by MTP. The first head is the one that the plugin
left at load; the checkpoint's, and FP8 by the plugin's own method, are put in its place in turn. Run in its own
process, so that the wheel on PYTHONPATH is the one that is used.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", TORCH_COMPILE_DISABLE="1")

import deckard_lm_head_method as ours
import torch
from safetensors import safe_open
from vllm import LLM, SamplingParams
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)


def stored(folder: str, ending: str) -> torch.Tensor:
    """Return the checkpoint's tensor whose name ends so."""
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  it is no mapping
                if name.endswith(ending):
                    return tensors.get_tensor(name)
    raise KeyError(ending)


def plain_head(head: ParallelLMHead, weight: torch.Tensor) -> ParallelLMHead:
    plain = copy.copy(head)
    plain._parameters = {"weight": torch.nn.Parameter(weight, requires_grad=False), "bias": None}
    plain.quant_method = UnquantizedEmbeddingMethod()
    plain.quant_method.process_weights_after_loading(plain)
    return plain


def ask(llm: LLM) -> dict[str, Any]:
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=-1)
    question = [{"role": "user", "content": "hi"}]
    outputs = llm.chat(question, params, use_tqdm=False, chat_template_kwargs={"enable_thinking": False})
    said = outputs[0].outputs[0]
    counted = {metric.name: getattr(metric, "value", 0) for metric in llm.get_metrics()}
    return {
        "text": said.text,
        "accepted": counted["vllm:spec_decode_num_accepted_tokens"],
        "log_probabilities": [[row[token].logprob for token in sorted(row)] for row in said.logprobs],
    }


def refusal(model: torch.nn.Module) -> str:
    try:
        ours.find_plain_head(model)
    except ValueError as error:
        return str(error)
    return "accepted"


def main() -> None:
    folder, drafter = sys.argv[1].split("+")
    speculative = {"model": drafter, "num_speculative_tokens": 4}
    options = {"max_model_len": 512, "max_num_seqs": 2, "enforce_eager": True, "max_logprobs": -1}
    llm = LLM(folder, disable_log_stats=False, speculative_config=speculative, **options)
    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    layers = [module for module in runner.model.modules() if isinstance(module, VocabParallelEmbedding)]
    head = next(layer for layer in layers if isinstance(layer, ParallelLMHead))
    table = next(layer for layer in layers if not isinstance(layer, ParallelLMHead)).weight
    owner = next(module for module in runner.model.modules() if module._modules.get("lm_head") is head)
    found = {"module": ours.__file__, "head": type(head.quant_method).__name__}
    weight = stored(folder, "lm_head.weight")
    found["table_kept"] = torch.equal(table, stored(folder, "embed_tokens.weight"))
    found["rounded"] = not torch.equal(head.weight, weight)
    found["again"] = refusal(runner.model)
    found["drafter"] = type(runner.drafter.model.lm_head.quant_method).__name__
    found["loaded"] = ask(llm)
    owner.lm_head = plain_head(head, weight)
    found["plain"] = ask(llm)
    owner.lm_head = quantized = plain_head(head, weight)
    quantized.quant_method = ours.METHODS["fp8"](quantized, weight.dtype)
    quantized.quant_method.process_weights_after_loading(quantized)
    found["fp8"] = ask(llm)
    ours.LIMITS["nvfp4"] = 1e-6
    broken = plain_head(head, weight)
    broken.quant_method = ours.METHODS["nvfp4"](broken, weight.dtype)
    try:
        broken.quant_method.process_weights_after_loading(broken)
    except ValueError as error:
        found["far off"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
