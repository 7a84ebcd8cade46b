"""Run vLLM's real linear layers with the formats that a patch or a plugin adds; print one JSON object.

Each case loads a quantized checkpoint into real QKV, merged and row-parallel layers and compares their output with
float64 arithmetic over the same codes. `off` is that relative difference: rounding to bfloat16 alone gives about 0.002.
`true` is the difference from the weights before quantization, `format` that of the float64 arithmetic. It runs in a
process of its own, with the patched tree or the wheel first on PYTHONPATH, so that the import is a deployment's.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.multiprocessing as mp
from nvfp4_reference import HEAD, HEADS, HIDDEN, KV_HEADS, SHARDS, WIDTHS, Linear, checkpoint, reference
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.utils.marlin_utils_fp4 import nvfp4_marlin_process_scales
from vllm.plugins import load_general_plugins

load_general_plugins()  # as every process of the engine does
if hasattr(modelopt, "LINEAR_METHOD_BUILDERS"):  # the plugin's vLLM
    import deckard_nvfp4_scheme as ours
    from vllm.model_executor.layers.fused_moe import RoutedExperts as Experts
else:
    from vllm.model_executor.layers.fused_moe.layer import FusedMoE as Experts

    ours = modelopt


def build(kind: str, algo: str) -> torch.nn.Module:
    config = modelopt.ModelOptNvFp4Config.from_config(
        {"quant_method": "modelopt", "quant_algo": algo, "ignore": ["lm_head"]}
    )
    options: dict[str, Any] = {"bias": False, "params_dtype": torch.bfloat16, "quant_config": config}
    if kind == "qkv":
        return QKVParallelLinear(HIDDEN, HEAD, HEADS, KV_HEADS, prefix="layers.0.qkv_proj", **options)
    if kind == "gate_up":
        return MergedColumnParallelLinear(
            HIDDEN, list(WIDTHS[kind]), prefix="layers.0.gate_up_proj", **options
        )
    return RowParallelLinear(HIDDEN, WIDTHS[kind][0], prefix="layers.0.down_proj", **options)


def load(linear: Linear, skip: tuple[str, ...] = ()) -> torch.nn.Module:
    """The layer with the checkpoint's tensors in it, by name and shard as a model's load_weights does."""
    layer = build(linear.kind, linear.algo)
    parameters = dict(layer.named_parameters())
    for tensors, shard in zip(linear.shards, SHARDS[linear.kind], strict=True):
        for name, tensor in tensors.items():
            if name not in skip:
                arguments = () if shard is None else (shard,)
                parameters[name].weight_loader(parameters[name], tensor, *arguments)
    return layer


def off(linear: Linear, sabotage: Callable[[torch.nn.Module], None] | None = None) -> dict[str, float]:
    layer = load(linear)
    layer.quant_method.process_weights_after_loading(layer)
    if sabotage:
        sabotage(layer)
    with torch.inference_mode():
        out = layer(linear.x)[0].double()
    expected, true = reference(linear), linear.x.double() @ linear.weight.T
    return {
        "off": _relative(out, expected),
        "true": _relative(out, true),
        "format": _relative(expected, true),
    }


def _relative(out: torch.Tensor, expected: torch.Tensor) -> float:
    value = ((out - expected).norm() / expected.norm()).item()
    return float("inf") if math.isnan(value) else value


def refusal(action: Callable[[], object]) -> str:
    try:
        action()
    except (ValueError, AssertionError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def with_nan(linear: Linear, *, lost: bool) -> Linear:
    """Two blocks whose scale overflowed to NaN: their codes intact, or sixteen equal maxima as ModelOpt leaves them."""
    scale, weight = linear.shards[0]["weight_scale"], linear.shards[0]["weight"]
    for row, block, byte in ((3, 5, 0x7F), (7, 0, 0xFF)):
        scale.view(torch.uint8)[row, block] = byte
        if lost:
            weight[row, block * 8 : block * 8 + 8] = 0x77
    return linear


def repaired(linear: Linear, byte: int) -> Linear:
    """The same checkpoint with the repair that is right for it: what the reference is computed from."""
    shards = [dict(tensors) for tensors in linear.shards]
    scale = shards[0]["weight_scale"].clone()
    scale.view(torch.uint8)[(scale.view(torch.uint8) & 0x7F) == 0x7F] = byte
    shards[0]["weight_scale"] = scale
    return Linear(linear.kind, linear.algo, shards, linear.weight, linear.x)


def nan_case(*, lost: bool) -> dict[str, float]:
    linear = with_nan(checkpoint("row", "NVFP4_AWQ"), lost=lost)
    layer = load(linear)
    layer.quant_method.process_weights_after_loading(layer)
    out = layer(linear.x)[0].double()
    return {"off": _relative(out, reference(repaired(linear, 0 if lost else 0x7E)))}


def replaced_parameters(layer: torch.nn.Module) -> None:
    """Delete every parameter, as Humming's conversion does, and keep the tensors of NVFP4 that its kernel reads."""
    plain = load(checkpoint("row", "NVFP4"))
    plain.quant_method.process_weights_after_loading(plain)
    kept = dict(plain.named_parameters(recurse=False))
    for name, parameter in list(layer.named_parameters(recurse=False)):
        delattr(layer, name)
        if name in kept:
            setattr(layer, name, parameter.data)


def no_scale(layer: torch.nn.Module) -> None:
    layer.pre_quant_scale = None


@contextmanager
def nan_left_in() -> Iterator[None]:
    kept = ours._repair_nan_scales
    ours._repair_nan_scales = lambda *_: None
    yield
    ours._repair_nan_scales = kept


def marlin_scale(drop: Callable[[torch.nn.Module], None]) -> dict[str, float]:
    """The relative error of the scale 448 in Marlin's five bits of exponent, next to a single one of 2**-7."""
    layer = torch.nn.Module()
    scales = torch.full((16, 64), 448.0)
    scales[3, 7] = 2**-7
    layer.weight_scale = torch.nn.Parameter(scales.to(torch.float8_e4m3fn), requires_grad=False)
    drop(layer)
    held, factor = nvfp4_marlin_process_scales(layer.weight_scale.to(torch.bfloat16), a_dtype=torch.bfloat16)
    decoded = (held.view(torch.uint8).to(torch.int16) << 7).view(torch.float16).float() / 2**7 / factor
    return {"off": float((decoded.max() / 448 - 1).abs())}


def single() -> dict[str, Any]:
    """Every case of one process."""
    found: dict[str, Any] = {}
    for kind in SHARDS:
        for algo in ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD"):
            found[f"{algo}/{kind}"] = off(checkpoint(kind, algo))
            if algo != "NVFP4":
                found[f"control/no pre_quant_scale/{algo}/{kind}"] = off(checkpoint(kind, algo), no_scale)
                if ours is not modelopt:  # 0.19.1 has no Humming
                    name = f"parameters replaced/{algo}/{kind}"
                    found[name] = off(checkpoint(kind, algo), replaced_parameters)
    found["nan/intact"], found["nan/lost"] = nan_case(lost=False), nan_case(lost=True)
    with nan_left_in():
        found["control/nan left in"] = {"off": None}  # vLLM 0.32 refuses what 0.19.1 computes NaN from
        refused = refusal(lambda: found["control/nan left in"].update(nan_case(lost=False)))
        found["control/nan left in"]["refused"] = refused
    found["control/marlin scale"] = marlin_scale(lambda _: None)
    found["marlin scale"] = marlin_scale(getattr(ours, "_drop_scales_marlin_cannot_hold", lambda _: None))
    folded = load(checkpoint("qkv", "NVFP4_AWQ", scaled=False))
    folded.quant_method.process_weights_after_loading(folded)
    found["folded"] = {
        **off(checkpoint("qkv", "NVFP4_AWQ", scaled=False)),
        "dropped": folded.pre_quant_scale is None,
    }
    found.update(refusals())
    return found


def refusals() -> dict[str, str]:
    other = checkpoint("qkv", "NVFP4_AWQ")
    other.shards[1] = {**other.shards[1], "pre_quant_scale": other.shards[1]["pre_quant_scale"] * 2}
    partly = checkpoint("gate_up", "NVFP4_AWQ")
    del partly.shards[1]["pre_quant_scale"]
    broken = checkpoint("row", "NVFP4")
    broken.shards[0]["weight_scale"].view(torch.uint8).fill_(0x7F)
    svd = checkpoint("row", "NVFP4_SVD")
    loras = ("weight_quantizer._svdquant_lora_a", "weight_quantizer._svdquant_lora_b")
    layers = {"partly scaled": load(partly), "all NaN": load(broken), "no residual": load(svd, skip=loras)}
    told = {
        name: refusal(lambda layer=layer: layer.quant_method.process_weights_after_loading(layer))
        for name, layer in layers.items()
    }
    config = modelopt.ModelOptNvFp4Config.from_config({"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"})
    experts = Experts.__new__(Experts)
    vars(experts)["moe_config"] = None
    mixed = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}
    layers_of = {"quantized_layers": {"model.layers.0.mlp.down_proj": {"quant_algo": "NVFP4_AWQ"}}}
    return {
        **told,
        "unequal": refusal(lambda: load(other)),
        "experts": refusal(lambda: config.get_quant_method(experts, "model.layers.0.mlp.experts")),
        "mixed": refusal(
            lambda: row_of(modelopt.ModelOptMixedPrecisionConfig.from_config({**mixed, **layers_of}))
        ),
    }


def row_of(config: Any) -> torch.nn.Module:
    prefix = "model.layers.0.mlp.down_proj"
    return RowParallelLinear(
        HIDDEN, 64, bias=False, params_dtype=torch.bfloat16, quant_config=config, prefix=prefix
    )


def start(rank: int, world: int, meeting: str) -> None:
    """The ranks meet at a file that is not there yet: a port that was free might be somebody else's by then."""
    init_distributed_environment(world, rank, f"file://{meeting}", rank, backend="gloo")
    initialize_model_parallel(world)


def parallel(rank: int, folder: str) -> None:
    """One rank of tensor parallel size 2."""
    with set_current_vllm_config(VllmConfig()):
        start(rank, 2, f"{folder}/meeting")
        outputs = {
            f"tp2/{algo}/{kind}": shard_output(checkpoint(kind, algo), rank)
            for algo in ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD")
            for kind in SHARDS
        }
        outputs["control/unsharded/row"] = shard_output(checkpoint("row", "NVFP4_AWQ"), rank, whole=True)
    torch.save(outputs, f"{folder}/{rank}")


def shard_output(linear: Linear, rank: int, *, whole: bool = False) -> torch.Tensor:
    layer = load(linear)
    if whole:  # every rank takes the first half, as a loader that knows no ranks does
        layer.pre_quant_scale.data.copy_(linear.shards[0]["pre_quant_scale"][: HIDDEN // 2])
    layer.quant_method.process_weights_after_loading(layer)
    x = linear.x.chunk(2, dim=-1)[rank].contiguous() if linear.kind == "row" else linear.x
    with torch.inference_mode():
        return layer(x)[0].float()


def joined(name: str, first: torch.Tensor, second: torch.Tensor) -> dict[str, float]:
    kind, algo = name.rsplit("/", 1)[1], "NVFP4_AWQ" if name.startswith("control") else name.split("/")[1]
    expected = reference(checkpoint(kind, algo))
    if kind == "row":  # reduced over the ranks: both hold the whole sum
        return {"off": _relative(first.double(), expected)}
    whole = torch.cat(_halves(first, second, WIDTHS[kind]), -1)
    return {"off": _relative(whole.double(), expected)}


def _halves(first: torch.Tensor, second: torch.Tensor, widths: tuple[int, ...]) -> list[torch.Tensor]:
    half = [width // 2 for width in widths]
    pairs = zip(first.split(half, -1), second.split(half, -1), strict=True)
    return [part for pair in pairs for part in pair]


def run_parallel(folder: str) -> dict[str, Any]:
    os.environ["VLLM_DIST_IDENT"] = str(os.getpid())  # the engine sets it before it starts its workers
    mp.spawn(parallel, args=(folder,), nprocs=2)
    first, second = (torch.load(f"{folder}/{rank}") for rank in range(2))
    return {name: joined(name, first[name], second[name]) for name in first}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        found = run_parallel(work)
        with set_current_vllm_config(VllmConfig()):
            start(0, 1, f"{work}/alone")
            found.update(single())
    print(json.dumps({"module": ours.__file__, **found}))
