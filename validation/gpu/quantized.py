"""Compare whole quantized models with the same models dequantized, through Marlin and through the patch's emulation.

    env $(cat FOLDER/environment) python3 -m validation.gpu.quantized write TEXT_CHECKPOINT OUT
    env $(cat FOLDER/environment) python3 -m validation.gpu.quantized ask MODEL DTYPE GPUS RESULT.json
    python3 -m validation.gpu.quantized table OUT

FOLDER/environment is what modelopt_marlin.py prepared. `write` packs each linear as ModelOpt's export does and leaves
`<algo>.reference` beside it, with the weights that the packed ones stand for. `ask` writes the log-probability of
every token of eight random prompts.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import random
import re
import shutil
import sys
from pathlib import Path

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("o_proj",), ("down_proj",))
LINEAR = re.compile(r"(.*)\.(q_proj|k_proj|v_proj|gate_proj|up_proj|o_proj|down_proj)\.weight")
BROKEN = "layers.3.mlp.down_proj"


def pack(weights, algo: str, *, with_scale: bool, draw):
    """Tensors of each weight of a group that vLLM fuses, and the weight that they stand for (ModelOpt 0.42.0)."""
    import nvfp4_reference as nvfp4  # noqa: PLC0415  torch, not for `table`
    import torch  # noqa: PLC0415  same

    whole = torch.cat(weights).double()
    scale = torch.ones(whole.shape[1], dtype=torch.bfloat16)
    if with_scale:
        scale = torch.exp(torch.randn(whole.shape[1], generator=draw) * 0.5).to(torch.bfloat16)
    rest, low_rank, extra = whole / scale.double(), torch.zeros_like(whole), {}
    if algo == "NVFP4_SVD":
        u, s, v = torch.linalg.svd(rest, full_matrices=False)
        lora_a, lora_b = v[:32].to(torch.bfloat16), (u[:, :32] * s[:32]).to(torch.bfloat16)
        low_rank = lora_b.double() @ lora_a.double()
        extra = {"weight_quantizer._svdquant_lora_a": lora_a}
    global_scale = (rest - low_rank).abs().max() / (6 * 448)
    # The inputs are normed, so that 16 is above all of them; only the emulation uses it.
    extra |= {"input_scale": torch.tensor(16.0 / (6 * 448))}
    if with_scale:
        extra |= {"pre_quant_scale": scale}
    packed, begin = [], 0
    for part in (rest - low_rank).split([len(weight) for weight in weights]):
        tensors = {**extra, **nvfp4.quantize(part, global_scale)}
        rows = slice(begin, begin + len(part))
        if algo == "NVFP4_SVD":
            tensors["weight_quantizer._svdquant_lora_b"] = lora_b[rows].contiguous()
        packed.append((tensors, low_rank[rows], scale.double()))
        begin += len(part)
    return packed


def dequantized(tensors, low_rank, scale):
    import nvfp4_reference as nvfp4  # noqa: PLC0415  torch, not for `table`

    return ((nvfp4.dequantize(tensors) + low_rank) * scale).float()


def break_scales(tensors):
    """A NaN scale with its codes intact and one with its codes lost; the tensors as the patch repairs them."""
    import torch  # noqa: PLC0415  not for `table`

    repaired = {**tensors, "weight_scale": tensors["weight_scale"].clone()}
    for row, block, byte, lost in ((3, 5, 0x7F, False), (7, 0, 0xFF, True)):
        tensors["weight_scale"].view(torch.uint8)[row, block] = byte
        repaired["weight_scale"].view(torch.uint8)[row, block] = 0 if lost else 0x7E
        if lost:
            tensors["weight"][row, block * 8 : block * 8 + 8] = 0x77
    return repaired


def write_one(source: Path, out: Path, name: str) -> None:
    import torch  # noqa: PLC0415  not for `table`
    from safetensors.torch import load_file, save_file  # noqa: PLC0415  same

    algo, draw = name.removesuffix("_nan"), torch.Generator().manual_seed(0)
    weights = load_file(source / "model.safetensors")
    packed, reference, done = {}, {}, set()
    for key, weight in weights.items():
        found = LINEAR.fullmatch(key)
        if not found:
            packed[key] = reference[key] = weight
            continue
        group = next(names for names in FUSED if found[2] in names)
        if (found[1], group) in done:
            continue
        done.add((found[1], group))
        # AWQ's scale is folded into the norm before q/k/v and gate/up; SVDQuant keeps it everywhere.
        with_scale = algo == "NVFP4_SVD" or (algo == "NVFP4_AWQ" and len(group) == 1)
        parts = pack(
            [weights[f"{found[1]}.{part}.weight"] for part in group], algo, with_scale=with_scale, draw=draw
        )
        for part, (tensors, low_rank, scale) in zip(group, parts, strict=True):
            prefix = f"{found[1]}.{part}"
            kept = break_scales(tensors) if name.endswith("_nan") and prefix.endswith(BROKEN) else tensors
            reference[f"{prefix}.weight"] = dequantized(kept, low_rank, scale)
            packed |= {f"{prefix}.{tensor}": value.clone() for tensor, value in tensors.items()}
    config = json.loads((source / "config.json").read_text())
    quantization = {"quant_method": "modelopt", "quant_algo": algo, "ignore": ["lm_head"]}
    for folder, tensors, changes in (
        (out / name, packed, {"quantization_config": quantization, "dtype": "bfloat16"}),
        (out / f"{name}.reference", reference, {}),
    ):
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config | changes))


def ask(model: str, dtype: str, gpus: int, result: Path) -> None:
    from vllm import LLM, SamplingParams  # noqa: PLC0415  not for `table`

    llm = LLM(
        model=model,
        dtype=dtype,
        tensor_parallel_size=gpus,
        disable_custom_all_reduce=True,
        max_model_len=512,
        max_num_seqs=8,
        kv_cache_memory_bytes=1 << 30,
        gpu_memory_utilization=0.1,
        enforce_eager=True,
        skip_tokenizer_init=True,
    )
    draw = random.Random(0)
    prompts = [{"prompt_token_ids": [draw.randrange(11, 4096) for _ in range(200)]} for _ in range(8)]
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    found = [next(iter(step.values())).logprob for output in outputs for step in output.prompt_logprobs[1:]]
    result.write_text(json.dumps(found))


def table(out: Path) -> None:
    asked = {file.stem: json.loads(file.read_text()) for file in sorted(out.glob("*.json"))}

    def distance(first: str, second: str) -> str:
        if first not in asked or second not in asked:
            return "not run"
        gaps = [abs(a - b) for a, b in zip(asked[first], asked[second], strict=True)]
        return f"{sum(gaps) / len(gaps):.5f} / {max(gaps):.5f}"

    print("| checkpoint | rounding: bf16 reference | Marlin | Marlin, 2 GPUs | emulation |")
    print("| --- | --- | --- | --- | --- |")
    for name in ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD", "NVFP4_AWQ_nan"):
        exact = f"{name}.reference-float32"
        runs = (f"{name}.reference-bfloat16", f"{name}-marlin", f"{name}-marlin2", f"{name}-emulation")
        print(f"| {name} | " + " | ".join(distance(run, exact) for run in runs) + " |")
    control = distance("NVFP4.reference-float32", "NVFP4_AWQ.reference-float32")
    print(
        f"\nMean and largest distance of a token's log-probability. Two checkpoints apart (control): {control}"
    )


if __name__ == "__main__":
    if sys.argv[1] == "write":
        for kind in ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD", "NVFP4_AWQ_nan"):
            write_one(Path(sys.argv[2]), Path(sys.argv[3]), kind)
    elif sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
    else:
        table(Path(sys.argv[2]))
