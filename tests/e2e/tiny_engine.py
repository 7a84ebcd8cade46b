"""Load checkpoints with vLLM's engine, one after the other, and print what each answers, as JSON.

argv: checkpoint folders, each with `+FOLDER` behind it if that drafts for it by MTP, and `@` before it if it is asked
about an image too. Each is asked for the plain and the thinking script; an engine that does not start answers with its
error. Run in its own process, so that PYTHONPATH decides which files of vLLM are used.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import os
import sys
from pathlib import Path

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1")

from PIL import Image
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.layers.quantization import modelopt


def answers(argument: str) -> dict[str, str | float]:
    folder, _, drafter = argument.removeprefix("@").partition("+")
    sees = argument.startswith("@")
    options = {"max_model_len": 512, "max_num_seqs": 2, "enforce_eager": True}
    options["limit_mm_per_prompt"] = {"image": int(sees)}
    if drafter:
        options["speculative_config"] = {"model": drafter, "num_speculative_tokens": 4}
    try:
        engine = LLM(folder, disable_log_stats=False, **options)
    except ValueError as error:
        return {"error": str(error)}
    ask = [{"role": "user", "content": "hi"}]
    sampling = SamplingParams(temperature=0, max_tokens=40, skip_special_tokens=False)
    said = {
        mode: engine.chat(
            ask, sampling, use_tqdm=False, chat_template_kwargs={"enable_thinking": mode == "thinking"}
        )
        for mode in ("plain", "thinking")
    }
    if sees:
        image = {"type": "image_pil", "image_pil": Image.linear_gradient("L").convert("RGB")}
        ask = [{"role": "user", "content": [{"type": "text", "text": "hi"}, image]}]
        said["image"] = engine.chat(
            ask, sampling, use_tqdm=False, chat_template_kwargs={"enable_thinking": False}
        )
    counted = {metric.name: getattr(metric, "value", 0) for metric in engine.get_metrics()} if drafter else {}
    engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
    texts = {mode: outputs[0].outputs[0].text for mode, outputs in said.items()}
    if sees:
        texts["image_tokens"] = len(said["image"][0].prompt_token_ids) - len(
            said["plain"][0].prompt_token_ids
        )
    if not drafter:
        return texts
    accepted, drafted = (counted[f"vllm:spec_decode_num_{what}_tokens"] for what in ("accepted", "draft"))
    return {**texts, "acceptance": accepted / drafted}


if __name__ == "__main__":
    names = [
        "+".join(Path(part).name for part in argument.removeprefix("@").split("+"))
        for argument in sys.argv[1:]
    ]
    found = {name: answers(argument) for name, argument in zip(names, sys.argv[1:], strict=True)}
    ours = sys.modules.get("deckard_nvfp4_scheme", modelopt)
    print(json.dumps({"module": ours.__file__, **found}))
