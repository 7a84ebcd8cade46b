"""Train a small Gemma 4, quantize it by every recipe with the real ModelOpt, and compare each form with BF16.

    python -m validation.gpu.validate_quantize bundle .gpu/modelopt.tar.xz       where packages can be downloaded
    env PYTHONPATH=SITE python3 -m validation.gpu.validate_quantize run --work WORK --out OUT [--minutes 4]
    env PYTHONPATH=SITE python3 -m validation.gpu.validate_quantize layer --work WORK --out OUT [--texts 8]
    python3 -m validation.gpu.validate_quantize table OUT

SITE is the unpacked archive. `run` trains 0.38 billion parameters on this machine's Python files (bytes as tokens),
quantizes with the process of `quantize` itself, puts the weights that the exported files stand for into the BF16 model,
and scores text that was held out: as an engine with 4-bit weights and 16-bit inputs (Marlin, Humming) computes. `layer`
times a sliding and a full layer of the 31B's shapes. Both continue what an earlier call has begun: a step whose result
is in OUT is not repeated. `--cpu` rehearses everything with a model of 0.1 million parameters and recipe nvfp4.
"""

# torch, transformers and ModelOpt are not in the tools' environment.
# mypy: ignore-errors

import argparse
import hashlib
import json
import math
import random
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from deckard_deploy.catalog import library
from deckard_deploy.rehearsal import tokenizer
from deckard_deploy.rehearsal.script import BOS

RECIPES = ("nvfp4", "awq-lite", "awq-full", "svdquant")
ROOT = Path(__file__).resolve().parents[2]
INSIDE = ROOT / "deckard_deploy" / "quantizing" / "inside_modelopt.py"
LOCK = ROOT / "deckard_deploy" / "running" / "process" / "locks" / "modelopt-0.47.0" / "engine.txt"
LENGTH = 512
RESAMPLES = 2000


@dataclass(frozen=True)
class Sizes:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    full_kv_heads: int
    head_dim: int
    full_head_dim: int
    every: int = 6  # the sixth layer is a full one
    vision: int = 64


TRAINED = Sizes(24, 1024, 4096, 4, 2, 1, 256, 512)
REHEARSED = Sizes(6, 32, 64, 2, 1, 1, 16, 32, vision=32)
# The 31B's: tests/support/checkpoint_shapes.py, BIG. One sliding and one full layer.
LAYER = Sizes(2, 5376, 21504, 32, 16, 4, 256, 512, every=2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("bundle", "run", "layer", "table"))
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.what == "bundle":
        bundle(options.path)
    elif options.what == "table":
        table(options.path)
    else:
        options.work.mkdir(parents=True, exist_ok=True)
        options.out.mkdir(parents=True, exist_ok=True)
        if options.cpu:
            options.recipes, options.seeds = ["nvfp4"], 1
        run(options) if options.what == "run" else layer(options)


def bundle(archive: Path) -> None:
    """Pack ModelOpt and what it needs beside PyTorch, for Python 3.12 on x86_64, from the lock of `quantize`."""
    with tempfile.TemporaryDirectory() as folder:
        site, kept = Path(folder) / "site", Path(folder) / "kept.txt"
        # PyTorch's own dependencies are there; data sets in Parquet are not used.
        skipped = ("pyarrow", "sympy", "mpmath", "networkx", "numpy", "setuptools")
        blocks = LOCK.read_text().replace("\\\n", " ").splitlines()
        kept.write_text("\n".join(line for line in blocks if not line.startswith(skipped)))
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-deps", "--target", site, "--python-version", "3.12",
             "--python-platform", "x86_64-manylinux_2_28", "--require-hashes", "-r", kept],
            check=True,
        )  # fmt: skip
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:xz", preset=3) as packed:
            packed.add(site, "site", filter=lambda each: None if "__pycache__" in each.name else each)
    print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB")


def run(options) -> None:
    """Train, quantize and compare."""
    source, size = options.work / "bf16", REHEARSED if options.cpu else TRAINED
    train_texts, held_out = local_texts(64 if options.cpu else 60_000)
    if not (source / "config.json").exists():
        train(source, size, train_texts, options)
    calibration = options.work / "texts.jsonl"
    calibration.write_text("".join(json.dumps({"text": text}) + "\n" for text in train_texts[:4096]))
    passages = held_out[: 4 if options.cpu else 256]
    for recipe in options.recipes:
        for seed in range(options.seeds):
            result = options.out / f"{recipe}-{seed}.json"
            if result.exists():
                continue
            export = options.work / f"{recipe}-{seed}"
            found = quantize(source, export, recipe, seed, train_texts, options)
            found["quality"] = compare(source, export, passages, options)
            result.write_text(json.dumps(found, indent=1))
            print(result.name, found["seconds"], found["bytes"], found["quality"], flush=True)


def layer(options) -> None:
    """Time each recipe on two layers of the 31B's shapes with random weights."""
    source, size = options.work / "layer", REHEARSED if options.cpu else LAYER
    if not (source / "config.json").exists():
        save(new_model(size, options), source)
    texts = [
        " ".join(random.Random(number).choices(["red", "blue", "green"], k=400))
        for number in range(options.texts)
    ]
    for recipe in options.recipes:
        result = options.out / f"layer-{recipe}.json"
        if not result.exists():
            found = quantize(source, options.work / f"layer-{recipe}", recipe, 0, texts, options)
            result.write_text(json.dumps(found | {"layers": size.layers}, indent=1))
            print(result.name, found["seconds"], found["peak_gpu_bytes"], flush=True)


def local_texts(most: int) -> tuple[list[str], list[str]]:
    """Pieces of the Python files of this machine; a twentieth of the files is held out."""
    train_texts, held_out = [], []
    folders = (Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib")))
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest = hashlib.sha256(path.name.encode()).digest()[0]
            text = path.read_text(errors="replace")
            pieces = [text[at : at + LENGTH - 1] for at in range(0, len(text) - LENGTH, LENGTH)]
            (held_out if digest < 13 else train_texts).extend(pieces)
    draw = random.Random(0)
    draw.shuffle(train_texts)
    draw.shuffle(held_out)
    return train_texts[:most], held_out


def new_model(size: Sizes, options):
    import torch  # noqa: PLC0415  not for `bundle` and `table`
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration  # noqa: PLC0415  not for `bundle` and `table`

    ids = tokenizer.vocabulary()
    kinds = [
        "full_attention" if (at + 1) % size.every == 0 else "sliding_attention" for at in range(size.layers)
    ]
    torch.manual_seed(0)
    config = Gemma4Config(
        text_config={
            "vocab_size": tokenizer.VOCABULARY_SIZE, "vocab_size_per_layer_input": tokenizer.VOCABULARY_SIZE,
            "hidden_size": size.hidden, "hidden_size_per_layer_input": 0, "intermediate_size": size.intermediate,
            "num_hidden_layers": size.layers, "layer_types": kinds, "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads, "num_global_key_value_heads": size.full_kv_heads,
            "head_dim": size.head_dim, "global_head_dim": size.full_head_dim, "attention_k_eq_v": True,
            "num_kv_shared_layers": 0, "sliding_window": 256, "max_position_embeddings": 4096,
            "pad_token_id": ids["<pad>"], "bos_token_id": ids[BOS], "eos_token_id": ids["<eos>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "hidden_size": size.vision, "intermediate_size": 2 * size.vision, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": size.vision // 2,
        },
        audio_config=None,
        image_token_id=ids["<|image|>"], video_token_id=ids["<|video|>"], audio_token_id=ids["<|audio|>"],
        boi_token_id=ids["<|image>"], eoi_token_id=ids["<image|>"], boa_token_id=ids["<|audio>"],
        eoa_token_index=ids["<audio|>"], tie_word_embeddings=True,
    )  # fmt: skip
    model = Gemma4ForConditionalGeneration(config)
    return model.to(device(options))


def device(options) -> str:
    return "cpu" if options.cpu else "cuda:0"


def encoded(texts: list[str], options):
    import torch  # noqa: PLC0415  not for `bundle` and `table`
    from transformers import AutoTokenizer  # noqa: PLC0415  not for `bundle` and `table`

    # All pieces have bytes of ASCII or more: each is cut to the same number of tokens, or left out.
    reader = AutoTokenizer.from_pretrained(options.work / "tokenizer")
    rows = [row[:LENGTH] for row in reader(texts)["input_ids"] if len(row) >= LENGTH]
    return torch.tensor(rows)


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer.tokenizer_json()))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer.tokenizer_config(4096)))
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template("large"))


def train(source: Path, size: Sizes, texts: list[str], options) -> None:
    """Train for `--minutes` minutes and save in BF16."""
    import torch  # noqa: PLC0415  not for `bundle` and `table`

    write_tokenizer(options.work / "tokenizer")
    model = new_model(size, options)
    print(f"{sum(each.numel() for each in model.parameters()) / 1e6:.1f} million parameters", flush=True)
    trained = [each for name, each in model.named_parameters() if "vision" not in name]
    peak = 6e-4
    optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
    ids = encoded(texts, options)
    batch, until = (8, time.monotonic() + 5) if options.cpu else (48, time.monotonic() + 60 * options.minutes)
    began, step = time.monotonic(), 0
    while time.monotonic() < until:
        done = (time.monotonic() - began) / (until - began)
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))
        rows = ids[torch.randint(len(ids), (batch,))].to(device(options))
        with torch.autocast(device(options).partition(":")[0], dtype=torch.bfloat16):
            logits = model(input_ids=rows, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 50 == 1:
            print(f"step {step}: {loss.item():.3f} nats a byte", flush=True)
    save(model, source)
    (options.out / "training.json").write_text(
        json.dumps({"steps": step, "batch": batch, "loss": loss.item()})
    )


def save(model, source: Path) -> None:
    import torch  # noqa: PLC0415  not for `bundle` and `table`

    model.to(torch.bfloat16).save_pretrained(source)
    write_tokenizer(source)


def quantize(source: Path, export: Path, recipe: str, seed: int, texts: list[str], options) -> dict:  # noqa: PLR0917
    """Run the process of `quantize` and return its result, with sizes and NaN scales."""
    chosen = library.recipe(recipe).model_copy(update={"seed": seed, "sequence_length": LENGTH})
    samples = random.Random(seed).sample(texts, min(4 if options.cpu else options.texts, len(texts)))
    data, job = export.with_suffix(".jsonl"), export.with_suffix(".job.json")
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in samples))
    job.write_text(
        json.dumps(
            {"source": str(source.absolute()), "export": str(export.absolute()), "texts": str(data.absolute()),
             "recipe": chosen.model_dump(mode="json"), "device": device(options)}
        )
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, INSIDE, job], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        lines = [line for line in process.stdout if line.startswith('{"')]
    result = json.loads(lines[-1]).get("result") if process.returncode == 0 else None
    if result is None:
        raise SystemExit(f"{recipe}: exit code {process.returncode}")
    errors = list(result.pop("errors").values())
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        for folder in (source, export)
    }
    return {
        **result,
        "recipe": recipe,
        "seed": seed,
        "bytes": sizes,
        "nan_scales": nan_scales(export),
        "weight_error": {"mean": sum(errors) / len(errors), "largest": max(errors)},
    }


def nan_scales(export: Path) -> int:
    from safetensors import safe_open  # noqa: PLC0415  not for `bundle` and `table`

    count = 0
    for file in export.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  no dictionary
                if name.endswith(".weight_scale"):
                    count += int(opened.get_tensor(name).float().isnan().sum())
    return count


def compare(source: Path, export: Path, passages: list[str], options) -> dict:
    """Perplexity of both on the same passages, and the KL divergence, with intervals over passages."""
    import torch  # noqa: PLC0415  not for `bundle` and `table`

    from deckard_deploy.quantizing import inside_modelopt  # noqa: PLC0415  not for `bundle` and `table`

    ids = encoded(passages, options)
    model = inside_modelopt.load(source, device(options))
    before, after = (inside_modelopt.Tensors(folder, device(options)) for folder in (source, export))
    exact = [logarithms(model, row, options).cpu() for row in ids]
    parameters = dict(model.named_parameters())
    for name in after.names:
        if name.endswith(".weight_scale_2"):
            weight = name.removesuffix("_scale_2")
            parameters[weight].data.copy_(inside_modelopt.effective_weight(weight, before, after))
    losses, kl = [], []
    for row, first in zip(ids, exact, strict=True):
        second = logarithms(model, row, options).cpu()
        token = row[1:, None]
        losses.append((float(-first.gather(1, token).mean()), float(-second.gather(1, token).mean())))
        kl.append(float((first.exp() * (first - second)).sum(-1).mean()))
    torch.manual_seed(0)
    ratios = [math.exp(both[1] - both[0]) for both in losses]
    return {
        "passages": len(ids),
        "perplexity_bf16": math.exp(sum(both[0] for both in losses) / len(losses)),
        "perplexity_ratio": interval([math.log(ratio) for ratio in ratios], math.exp),
        "kl": interval(kl, float),
        "kl_of_passages": kl,
    }


def logarithms(model, row, options):
    import torch  # noqa: PLC0415  not for `bundle` and `table`

    with torch.no_grad():
        logits = model(input_ids=row[None].to(device(options)), use_cache=False).logits[0, :-1]
    return torch.log_softmax(logits.float(), -1)


def interval(values: list[float], shown) -> list[float]:
    """Return the mean and its 99 % bootstrap interval over passages."""
    draw = random.Random(0)
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    low, high = means[int(0.005 * RESAMPLES)], means[int(0.995 * RESAMPLES) - 1]
    return [shown(sum(values) / len(values)), shown(low), shown(high)]


def table(out: Path) -> None:
    """Print every result, and the paired differences in KL between the recipes."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*-[0-9].json"))]
    print(
        "| recipe | seed | seconds | bytes | NaN | weight error | perplexity, ratio to BF16 | KL from BF16 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for each in found:
        quality, seconds = each["quality"], sum(each["seconds"].values())
        print(
            f"| {each['recipe']} | {each['seed']} | {seconds:.0f} | {list(each['bytes'].values())[-1]:,} | "
            f"{each['nan_scales']} | {each['weight_error']['mean']:.4f} | {spread(quality['perplexity_ratio'])} | "
            f"{spread(quality['kl'])} |"
        )
    print("\n| pair | KL of the second minus KL of the first, by passage and seed | verdict |\n|---|---|---|")
    by_seed = {(each["recipe"], each["seed"]): each for each in found}
    for first, second in pairwise(RECIPES):
        pairs = paired(first, second, by_seed)
        if pairs:
            gap = interval(pairs, float)
            verdict = "no difference seen" if gap[1] <= 0 <= gap[2] else ("worse" if gap[0] > 0 else "better")
            print(f"| {first}, {second} | {spread(gap)} | {verdict} |")


def paired(first: str, second: str, found: dict) -> list[float]:
    gaps = []
    for (recipe, seed), result in found.items():
        other = found.get((second, seed))
        if recipe == first and other:
            before, after = (each["quality"]["kl_of_passages"] for each in (result, other))
            gaps += [b - a for a, b in zip(before, after, strict=True)]
    return gaps


def spread(values: list[float]) -> str:
    return f"{values[0]:.5f} ({values[1]:.5f} to {values[2]:.5f})"


if __name__ == "__main__":
    main()
