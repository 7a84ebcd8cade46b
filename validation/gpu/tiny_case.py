"""Ask the tiny model of the rehearsal on a GPU. Print one line for each checkpoint and way to run it.

    python3 -m validation.gpu.tiny_case FOLDER none:eager nvfp4:eager nvfp4_awq:graphs nvfp4_awq:emulated
    python3 -m validation.gpu.tiny_case FOLDER nvfp4_awq:eager:humming nvfp4_awq:eager:marlin

A third part is a `--linear-backend` of vLLM 0.32.0. FOLDER is what modelopt_marlin.py prepared, or holds a file
`environment` with the PYTHONPATH of another vLLM.
"""

# vLLM is in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

QUESTIONS = ("Hello?", "Who are you?", "Think about it.", "What is the weather in Paris?")


def ask(checkpoint: str, mode: str, backend: str) -> None:
    from vllm import LLM, SamplingParams  # noqa: PLC0415  in the engine's environment alone

    settings = {"max_model_len": 1024, "max_num_seqs": 8, "kv_cache_memory_bytes": 1 << 29}
    settings |= {"gpu_memory_utilization": 0.05, "enforce_eager": mode != "graphs"}
    if backend:
        settings["linear_backend"] = backend
    llm = LLM(model=checkpoint, attention_backend="TRITON_ATTN", **settings)
    params = SamplingParams(temperature=0, max_tokens=24, logprobs=3)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    outputs = [output.outputs[0] for output in llm.chat(chats, params, use_tqdm=False)]
    first = [
        {each.decoded_token: round(each.logprob, 2) for each in output.logprobs[0].values()}
        for output in outputs
    ]
    print(
        "ASKED " + json.dumps([[output.text, top] for output, top in zip(outputs, first, strict=True)]),
        flush=True,
    )
    os._exit(0)


def run(folder: Path, case: str) -> None:
    from deckard_deploy.rehearsal import gemma4  # noqa: PLC0415  not in the engine's environment

    kind, mode, *backend = case.split(":")
    checkpoint = gemma4.write(folder / f"tiny {case}", quantization=kind)
    env = os.environ | dict(line.split("=", 1) for line in (folder / "environment").read_text().splitlines())
    env |= {
        "VLLM_CACHE_ROOT": str(folder / f"cache {case}"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # an engine core of its own would outlive the question
    env |= {"VLLM_USE_NVFP4_CT_EMULATIONS": "1"} if mode == "emulated" else {}
    argv = [sys.executable, __file__, "ask", str(checkpoint), mode, *(backend or [""])]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=400, check=False)
    found = [line.removeprefix("ASKED ") for line in done.stdout.splitlines() if line.startswith("ASKED ")]
    kernels = sorted(set(re.findall(r"\w*NvFp4LinearKernel", done.stdout + done.stderr)))
    answer = found[0] if found else (done.stdout + done.stderr)[-1500:]
    print(f"{case} ({', '.join(kernels) or 'no NVFP4 kernel logged'}): {answer}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(*sys.argv[2:])
    cases = sys.argv[2:]
    with ThreadPoolExecutor(len(cases)) as pool:
        list(pool.map(lambda case: run(Path(sys.argv[1]), case), cases))
