import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deckard_deploy.rehearsal import gemma4 as tiny_gemma4
from deckard_deploy.rehearsal.gemma4 import Quantization
from deckard_deploy.weights.inspection import inspect
from deckard_deploy.weights.safetensors_header import read_header
from tests.support import checkpoint_shapes as real_shapes
from tests.support.malformed_safetensors import malformed_file

LAYOUTS: tuple[Quantization, ...] = ("none", "nvfp4", "nvfp4_awq", "nvfp4_svd")
Raw = dict[str, tuple[str, tuple[int, ...], bytes]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {name: tiny_gemma4.write(root / name, quantization=name) for name in LAYOUTS}


def copied(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "copy"))


def rewrite(path: Path, change: Callable[[Raw], object]) -> None:
    """Change tensors by name: (dtype, shape, bytes). The safetensors library has no float8 for NumPy."""
    content = path.read_bytes()
    raw = {
        name: (one.dtype, one.shape, content[one.begin : one.end])
        for name, one in sorted(read_header(path).items(), key=lambda item: item[1].begin)
    }
    change(raw)
    header, position = {}, 0
    for name, (dtype, shape, data) in raw.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    path.write_bytes(malformed_file(header, b"".join(data for _, _, data in raw.values())))


def test_inspect_finds_no_fault_in_tiny_checkpoints(tiny):
    for name, folder in tiny.items():
        found = inspect(folder, count_nan=True)
        assert (found.quantization, found.faults, found.nan_scales) == (name, (), 0)
        assert found.layers == (("sliding_attention", 5, 4, 2, 64), ("full_attention", 1, 4, 1, 128))


@pytest.mark.parametrize(
    ("name", "linears", "smoothed"), [("nvfp4", 41, 0), ("nvfp4_awq", 41, 12), ("nvfp4_svd", 41, 41)]
)
def test_inspect_counts_linears_of_each_layout(tiny, name, linears, smoothed):
    """12 of 41 is what ModelOpt 0.42.0 exported for a Gemma 4 of six layers with NVFP4_AWQ."""
    found = inspect(tiny[name])
    assert (len(found.linears), sum(one.smoothed for one in found.linears)) == (linears, smoothed)


def without(*names: str) -> Callable[[Raw], None]:
    def change(tensors: Raw) -> None:
        for name in names:
            del tensors[name]

    return change


LAYER = "model.language_model.layers.0."
DAMAGES = {
    "weight_scale is missing": ("nvfp4", without(f"{LAYER}mlp.up_proj.weight_scale")),
    "weight_scale_2 is missing": ("nvfp4", without(f"{LAYER}mlp.up_proj.weight_scale_2")),
    "input_scale is missing": ("nvfp4", without(f"{LAYER}mlp.up_proj.input_scale")),
    "pre_quant_scale is missing": ("nvfp4_awq", without(f"{LAYER}self_attn.o_proj.pre_quant_scale")),
    "low-rank branch is missing": (
        "nvfp4_svd",
        without(f"{LAYER}mlp.up_proj.weight_quantizer._svdquant_lora_a"),
    ),
    "its packed weight is not there": ("nvfp4", without(f"{LAYER}mlp.up_proj.weight")),
    "pre_quant_scale has shape [3]": (
        "nvfp4_awq",
        lambda tensors: tensors.update({f"{LAYER}mlp.down_proj.pre_quant_scale": ("BF16", (3,), bytes(6))}),
    ),
    "not F8_E4M3": (
        "nvfp4",
        lambda tensors: tensors.update({f"{LAYER}mlp.up_proj.weight_scale": ("U8", (512, 16), bytes(8192))}),
    ),
    "layer 0 has no q_proj": ("none", without(f"{LAYER}self_attn.q_proj.weight")),
    "layer 0: q_proj has no rows": (
        "none",
        lambda tensors: tensors.update({f"{LAYER}self_attn.q_proj.weight": ("BF16", (), bytes(2))}),
    ),
    "embedding is not there": ("none", without("model.language_model.embed_tokens.weight")),
}


@pytest.mark.parametrize(
    ("fault", "layout", "change"), [(key, *case) for key, case in DAMAGES.items()], ids=DAMAGES
)
def test_inspect_names_missing_or_odd_tensor(tiny, tmp_path, fault, layout, change):
    folder = copied(tiny[layout], tmp_path)
    rewrite(folder / "model.safetensors", change)
    assert any(fault in line for line in inspect(folder).faults)


def test_nan_scales_are_counted(tiny, tmp_path):
    folder = copied(tiny["nvfp4"], tmp_path)
    scales = read_header(folder / "model.safetensors")[f"{LAYER}mlp.up_proj.weight_scale"]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(scales.begin)
        file.write(b"\x7f\xff\x7e")  # 0x7e is 448, the largest number
    assert inspect(folder, count_nan=True).nan_scales == 2
    assert inspect(folder).nan_scales is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"num_hidden_layers": 7}, "layer_types has 6 entries for 7 layers"),
        ({"layer_types": ["wide"] * 6}, "'wide' is not known"),
        ({"head_dim": 32}, "4 heads of 32"),
        ({"global_head_dim": 64}, "layer 5"),
        ({"num_key_value_heads": 0}, "'0' is no count"),
        ({"vocab_size": 600}, "says [600, 256]"),
        ({"layer_types": 3}, "config.json"),
        ({"per_layer_config": {"x": {}}}, "config.json"),
    ],
)
def test_inspect_reports_config_tensor_mismatch(tiny, tmp_path, changes, fault):
    folder = copied(tiny["nvfp4_awq"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    assert any(fault in line for line in inspect(folder).faults)


def test_real_shapes_match_model_card_sizes(tmp_path):
    big = inspect(
        real_shapes.write(tmp_path / "31b", real_shapes.BIG),
        drafter=real_shapes.write(tmp_path / "e4b", real_shapes.SMALL, shards=2),
    )
    assert big.faults == ()
    assert abs(big.total_bytes / 20.45e9 - 1) < 0.005
    assert big.layers == (("sliding_attention", 50, 32, 16, 256), ("full_attention", 10, 32, 4, 512))
    assert len(big.linears) == 60 * 7 - 10
    small = inspect(tmp_path / "e4b")
    assert small.faults == ()
    assert abs(small.total_bytes / 9.6e9 - 1) < 0.02


def test_drafter_with_other_vocabulary_is_a_fault(tiny, tmp_path):
    big = real_shapes.write(tmp_path / "31b", real_shapes.BIG)
    assert inspect(big, drafter=tiny["none"]).faults == (
        "the drafter's vocabulary has 512 tokens, and this one 262144",
    )


def test_inspect_escapes_control_characters(tiny, tmp_path):
    folder, odd = copied(tiny["none"], tmp_path), "\x1b[2J\ud800"
    config = json.loads((folder / "config.json").read_text()) | {"architectures": [odd]}
    (folder / "config.json").write_text(json.dumps(config))
    quantization = {"producer": {"name": odd, "version": odd}, "quantization": {"quant_algo": odd}}
    (folder / "hf_quant_config.json").write_text(json.dumps(quantization))
    found = inspect(folder)
    said = (found.architecture, found.producer, found.quant_algo, *found.faults)
    assert all(text.isprintable() for text in said)
