import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    assert inspect(folder).nan_scales == 2  # a few scales are counted unasked
    (fault,) = inspect(folder).faults
    assert "a known fault of ModelOpt 0.42.0's export, fixed in 0.45.0" in fault


@pytest.mark.parametrize(
    ("producer", "cause"),
    [
        ({"name": "modelopt", "version": "0.44.0"}, "a known fault of ModelOpt 0.44.0's export"),
        ({"name": "modelopt", "version": "0.45.0"}, "the file is damaged"),
        ({"name": "modelopt", "version": "0.47.0.dev3"}, "the file is damaged"),
        ({"name": "modelopt"}, "unless the engine repairs them"),
        ({"name": "other", "version": "9.0"}, "unless the engine repairs them"),
    ],
)
def test_cause_of_nan_scales_depends_on_the_producer(tiny, tmp_path, producer, cause):
    folder = copied(tiny["nvfp4"], tmp_path)
    scales = read_header(folder / "model.safetensors")[f"{LAYER}mlp.up_proj.weight_scale"]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(scales.begin)
        file.write(b"\x7f")
    for name in ("hf_quant_config.json", "config.json"):
        content = json.loads((folder / name).read_text())
        place = content if name.startswith("hf") else content["quantization_config"]
        place["producer"] = producer
        (folder / name).write_text(json.dumps(content))
    (fault,) = inspect(folder).faults
    assert fault.startswith("1 weight scales are NaN: ")
    assert cause in fault


def change_json(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def as_format(folder: Path, quantization: dict[str, Any], change: Callable[[Raw], object]) -> Path:
    """Turn a tiny NVFP4 checkpoint into one of another format."""
    (folder / "hf_quant_config.json").unlink()
    change_json(folder, "config.json", lambda config: config.update(quantization_config=quantization))
    rewrite(folder / "model.safetensors", change)
    return folder


def to_compressed(tensors: Raw) -> None:
    packed = {name.removesuffix(".weight") for name, tensor in tensors.items() if tensor[0] == "U8"}
    for name in packed:
        tensors[f"{name}.weight_packed"] = tensors.pop(f"{name}.weight")
        tensors[f"{name}.weight_global_scale"] = tensors.pop(f"{name}.weight_scale_2")
        tensors[f"{name}.input_global_scale"] = tensors.pop(f"{name}.input_scale")


def to_w4a16(tensors: Raw) -> None:
    for name in [name for name in tensors if name.endswith(".input_scale")]:
        del tensors[name]


def to_fp8(tensors: Raw) -> None:
    for name, (dtype, (rows, columns), data) in [item for item in tensors.items() if item[1][0] == "U8"]:
        del dtype
        tensors[name] = ("F8_E4M3", (rows, columns * 2), data * 2)
        tensors[f"{name}_scale"] = ("F32", (), bytes(4))
        del tensors[f"{name}_scale_2"]


COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "nvfp4-pack-quantized",
    "config_groups": {"group_0": {"format": "nvfp4-pack-quantized", "targets": ["Linear"]}},
}
FORMATS: dict[str, tuple[dict[str, Any], Callable[[Raw], object], str, tuple[str, ...]]] = {
    "compressed-tensors": (
        COMPRESSED,
        to_compressed,
        "compressed-tensors (nvfp4-pack-quantized)",
        ("vLLM 0.19.1", "vLLM 0.32.0", "vLLM 0.33.0"),
    ),
    "w4a16": (
        {"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"},
        to_w4a16,
        "W4A16_NVFP4",
        ("vLLM 0.32.0", "vLLM 0.33.0"),
    ),
    "fp8": (
        {"quant_method": "modelopt", "quant_algo": "FP8"},
        to_fp8,
        "FP8",
        ("vLLM 0.19.1", "vLLM 0.32.0", "vLLM 0.33.0"),
    ),
}


@pytest.mark.parametrize("case", FORMATS)
def test_other_formats_are_named_and_sound(tiny, tmp_path, case):
    quantization, change, text, releases = FORMATS[case]
    folder = as_format(copied(tiny["nvfp4"], tmp_path), quantization, change)
    found = inspect(folder)
    assert (found.format, found.loaded_by, found.faults) == (text, releases, ())


@pytest.mark.parametrize(
    ("case", "lost"),
    [
        ("compressed-tensors", "weight_global_scale"),
        ("compressed-tensors", "weight_scale"),
        ("w4a16", "weight_scale_2"),
        ("fp8", "weight_scale"),
    ],
)
def test_linear_of_other_format_without_a_scale_is_a_fault(tiny, tmp_path, case, lost):
    quantization, change, _, _ = FORMATS[case]
    folder = as_format(copied(tiny["nvfp4"], tmp_path), quantization, change)
    rewrite(folder / "model.safetensors", without(f"{LAYER}mlp.up_proj.{lost}"))
    assert inspect(folder).faults == (f"{LAYER}mlp.up_proj: {lost} is missing",)


def test_format_without_its_tensors_is_a_fault(tiny, tmp_path):
    folder = copied(tiny["none"], tmp_path)
    change_json(folder, "config.json", lambda config: config.update(quantization_config=COMPRESSED))
    (fault,) = inspect(folder).faults
    assert "no linear has a weight_packed of it" in fault


def test_mixed_precision_is_checked_by_layer(tiny, tmp_path):
    folder = copied(tiny["nvfp4"], tmp_path)
    up, down = f"{LAYER}mlp.up_proj", f"{LAYER}mlp.down_proj"
    layers = {up: {"quant_algo": "NVFP4", "group_size": 16}}
    mixed = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    as_format(folder, mixed, lambda _: None)
    found = inspect(folder)
    assert (found.format, found.faults) == ("MIXED_PRECISION (1 NVFP4)", ())
    for name, settings, fault in (
        (down, {"quant_algo": "FP8"}, "its weight is U8, and quantized_layers says FP8"),
        ("model.nobody", {"quant_algo": "FP8"}, "it has no weight"),
        (down, {"quant_algo": "NEW"}, "quant_algo 'NEW' is not known"),
    ):
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {**mixed, "quantized_layers": {**layers, name: settings}}
        (folder / "config.json").write_text(json.dumps(config))
        (line,) = inspect(folder).faults
        assert fault in line


@pytest.mark.parametrize(
    ("quantization", "text", "fault"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq (4 bits)", "no linear has a qweight of it"),
        ({"quant_method": "exl3", "bits": 3}, "exl3 (3 bits)", "is none that an engine of ours serves"),
        ({"quant_algo": "NEW_ALGO"}, "NEW_ALGO", "is none that an engine of ours serves"),
        ({"bits": 4}, "without a name", "is none that an engine of ours serves"),
    ],
)
def test_unknown_or_empty_format_is_a_fault(tiny, tmp_path, quantization, text, fault):
    folder = copied(tiny["none"], tmp_path)
    change_json(folder, "config.json", lambda config: config.update(quantization_config=quantization))
    found = inspect(folder)
    assert found.format == text
    assert any(fault in line for line in found.faults)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("tokenizer.json", "tokenizer.json is missing"),
        ("chat_template.jinja", "no chat template (chat_template.jinja)"),
        ("processor_config.json", "processor_config.json is missing"),
    ],
)
def test_missing_file_next_to_the_weights_is_a_fault(tiny, tmp_path, name, fault):
    folder = copied(tiny["nvfp4"], tmp_path)
    (folder / name).unlink()
    (line,) = inspect(folder).faults
    assert line.startswith(fault)


def test_other_places_of_template_and_processor_are_accepted(tiny, tmp_path):
    folder = copied(tiny["nvfp4"], tmp_path)
    (folder / "chat_template.jinja").unlink()
    change_json(folder, "tokenizer_config.json", lambda one: one.update(chat_template="{{ messages }}"))
    (folder / "processor_config.json").rename(folder / "preprocessor_config.json")
    assert inspect(folder).faults == ()
    (folder / "preprocessor_config.json").unlink()
    change_json(folder, "config.json", lambda config: config.pop("vision_config"))
    assert inspect(folder).faults == ()


def test_pointer_in_place_of_the_tokenizer_is_a_fault(tiny, tmp_path):
    folder = copied(tiny["nvfp4"], tmp_path)
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    (line,) = inspect(folder).faults
    assert "git lfs pull" in line


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
