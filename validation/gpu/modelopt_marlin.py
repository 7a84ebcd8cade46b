"""Measure patches/vllm-0.19.1/modelopt.patch on a GPU: its layers on Marlin, and its emulation, against float64.

On an sm_90 machine with PyTorch and .gpu/site.tar.xz (see bundle.py), from the repository's root:

    python3 -m validation.gpu.modelopt_marlin prepare FOLDER     unpacks vLLM, patches it, prints the environment to use
    env $(cat FOLDER/environment) python3 -m validation.gpu.modelopt_marlin measure
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def prepare(folder: Path) -> None:
    site = folder / "site"
    site.mkdir(parents=True)
    subprocess.run(["tar", "-xJf", ROOT / ".gpu/site.tar.xz", "-C", site], check=True)
    sys.path[:0] = [str(ROOT), str(site)]
    from deckard_deploy.patching.base_files import from_package  # noqa: PLC0415  its dependencies are in the site
    from deckard_deploy.patching.build import build  # noqa: PLC0415  same
    from deckard_deploy.patching.manifest import load_patch_set  # noqa: PLC0415  same
    from deckard_deploy.patching.overlay import create_overlay  # noqa: PLC0415  same

    patch_set = load_patch_set("vllm-0.19.1")
    base = from_package(site / "vllm", [patch.target for patch in patch_set.patches])
    tree = create_overlay(site / "vllm", build(patch_set, base, folder / "files"), folder / "overlay")
    variables = {
        "PYTHONPATH": f"{tree}:{site}:{ROOT / 'tests/e2e'}",
        "LD_PRELOAD": site / "libmessage_logger_shim.so",
        "LD_LIBRARY_PATH": f"{site}/nvidia/cuda_runtime/lib:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    (folder / "environment").write_text("\n".join(f"{name}={value}" for name, value in variables.items()))


def measure() -> None:
    import modelopt_layers as layers  # noqa: PLC0415  needs vLLM
    import nvfp4_reference as nvfp4  # noqa: PLC0415  same
    import torch  # noqa: PLC0415  same

    def weight_only(linear):
        """Marlin multiplies the dequantized weight with the input as it is."""
        first = linear.shards[0]
        x = (linear.x * first["pre_quant_scale"] if "pre_quant_scale" in first else linear.x).double()
        out = x @ torch.cat([nvfp4.dequantize(tensors) for tensors in linear.shards]).T
        if "weight_quantizer._svdquant_lora_a" in first:
            lora_b = torch.cat([tensors["weight_quantizer._svdquant_lora_b"] for tensors in linear.shards])
            out = out + x @ first["weight_quantizer._svdquant_lora_a"].double().T @ lora_b.double().T
        return out

    def off(linear, expected, sabotage=None):
        with torch.device("cuda"):
            layer = layers.load(linear)
        layer.quant_method.process_weights_after_loading(layer)
        if sabotage:
            sabotage(layer)
        with torch.inference_mode():
            return layers._relative(
                layer(linear.x.cuda())[0].double().cpu(), expected
            ), layer.quant_method.backend.value

    with layers.set_current_vllm_config(layers.VllmConfig()):
        layers.start(0, 1, f"{tempfile.mkdtemp()}/alone")
        found = {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "module": layers.modelopt.__file__,
        }
        reference = layers.reference if os.environ.get("VLLM_USE_NVFP4_CT_EMULATIONS") else weight_only
        for kind in layers.SHARDS:
            for algo in ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD"):
                linear = layers.checkpoint(kind, algo)
                found[f"{algo}/{kind}"] = off(linear, reference(linear))
                if algo != "NVFP4":
                    found[f"control/{algo}/{kind}"] = off(linear, reference(linear), layers.no_scale)
        for lost in (False, True):
            linear = layers.with_nan(layers.checkpoint("row", "NVFP4_AWQ"), lost=lost)
            expected = reference(layers.repaired(linear, 0 if lost else 0x7E))
            found[f"nan/{'lost' if lost else 'intact'}"] = off(linear, expected)
            with layers.nan_left_in():
                linear = layers.with_nan(layers.checkpoint("row", "NVFP4_AWQ"), lost=lost)
                found[f"control/nan left in/{'lost' if lost else 'intact'}"] = off(linear, expected)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    prepare(Path(sys.argv[2])) if sys.argv[1] == "prepare" else measure()
