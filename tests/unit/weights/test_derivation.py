"""The spec that is derived from a checkpoint's own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.catalog import library, strict_yaml
from deckard_deploy.catalog.specs import HubRepository, LocalFolder, ModelSpec
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import IntegrityError
from deckard_deploy.operations.weights import generate
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.weights.checkpoint import read_checkpoint
from deckard_deploy.weights.derivation import DerivedModel, derive, model_file, model_name
from tests.support import checkpoint_shapes

GEMMA = "Gemma4ForConditionalGeneration"


def derived_from(folder: Path) -> DerivedModel:
    weights = LocalFolder(folder=str(folder))
    return derive(read_checkpoint(folder), name="mine", served_name="mine", weights=weights)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    folder = checkpoint_shapes.write(tmp_path / "big", checkpoint_shapes.BIG)
    (folder / "chat_template.jinja").write_text("<|channel> <|tool_call>")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    """Change keys of config.json; keys of text_config by text_config=..., None removes a key."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if key == "text_config":
            config["text_config"] |= value
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def test_31b_is_derived_as_the_catalog_has_it(big: Path) -> None:
    found = derived_from(big)
    known = library.model("deckard-31b")
    for field in ("architecture", "quantization", "context_limit", "serve", "drafters"):
        assert getattr(found.spec, field) == getattr(known, field), field
    assert set(known.served_by) <= set(found.spec.served_by)
    assert "vllm-0.32.0-cpu" not in found.spec.served_by
    assert found.spec.size_gb == pytest.approx(known.size_gb, rel=0.01)
    assert found.warnings == ()


def test_e4b_shape_is_that_of_the_catalog(tmp_path: Path) -> None:
    folder = checkpoint_shapes.write(tmp_path / "small", checkpoint_shapes.SMALL)
    assert derived_from(folder).spec.architecture == library.model("deckard-e4b").architecture


def test_tiny_model_may_run_on_every_engine(tmp_path: Path) -> None:
    folder = gemma4.write(tmp_path / "tiny", quantization="nvfp4_awq")
    found = derived_from(folder)
    assert found.spec.architecture == library.model("tiny-gemma4").architecture
    assert found.spec.served_by == ()
    assert found.spec.serve["enforce-eager"] is True
    assert found.spec.drafters == library.model("tiny-gemma4").drafters
    assert found.warnings == ()


@pytest.mark.parametrize("name", ["tiny-gemma4", "tiny-gemma4-moe", "tiny-gemma4-e"])
def test_generated_model_is_as_the_catalog_has_it(tmp_path: Path, name: str) -> None:
    known = library.model(name)
    generate(known, tmp_path / name)
    found = derived_from(tmp_path / name).spec
    assert (found.architecture, found.quantization) == (known.architecture, known.quantization)
    assert 0 < found.size_gb <= known.size_gb
    assert ("experts" in found.component_bytes) is (known.architecture.experts > 0)


def test_experts_are_counted_apart(big: Path) -> None:
    change_config(
        big,
        text_config={
            "enable_moe_block": True,
            "num_experts": 128,
            "top_k_experts": 8,
            "moe_intermediate_size": 704,
        },
    )
    entries: list[checkpoint_shapes.Entry] = [
        ("model.language_model.layers.0.experts.gate_up_proj", "BF16", (128, 1408, 16))
    ]
    checkpoint_shapes.write_holes(big / "experts.safetensors", entries)
    index = json.loads((big / "model.safetensors.index.json").read_text())
    index["weight_map"][entries[0][0]] = "experts.safetensors"
    (big / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = derived_from(big).spec
    assert (spec.architecture.experts, spec.architecture.experts_per_token) == (128, 8)
    assert spec.component_bytes["experts"] == 128 * 1408 * 16 * 2


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (None, "none"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt_fp8"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "bitsandbytes"}, "other"),
        ({"quant_algo": ["NVFP4"]}, "other"),
    ],
)
def test_quantization_is_read(big: Path, quantization: object, expected: str) -> None:
    (big / "hf_quant_config.json").unlink()
    change_config(big, quantization_config=quantization)
    found = derived_from(big)
    assert found.spec.quantization == expected
    assert any("is not known here" in warning for warning in found.warnings) is (expected == "other")


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"max_position_embeddings": None}, "the context limit is not known"),
        ({"sliding_window": None}, "the memory is not computed"),
        ({"layer_types": ["full_attention"] * 60}, "the memory is not computed"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 30}, "the memory is not computed"),
        ({"head_dim": "wide"}, "the memory is not computed"),
        ({"hidden_size": 10**400}, "the memory is not computed"),
        ({"num_kv_shared_layers": 55}, "num_kv_shared_layers is 55, of 60 layers"),
        (
            {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 8},
            "top_k_experts is 8, of 4 experts",
        ),
    ],
)
def test_unknown_value_is_a_warning(big: Path, changes: dict[str, Any], warning: str) -> None:
    change_config(big, text_config=changes)
    assert any(warning in line for line in derived_from(big).warnings)


def test_smallest_of_the_keys_of_a_length_counts(big: Path) -> None:
    change_config(big, text_config={"n_positions": 1024, "seq_length": "long", "max_seq_len": 2048})
    assert derived_from(big).spec.context_limit == 1024


def test_missing_tokenizer_and_template_are_warnings(big: Path) -> None:
    (big / "tokenizer.json").unlink()
    (big / "chat_template.jinja").unlink()
    found = derived_from(big)
    assert len(found.warnings) == 2
    assert "reasoning-parser" not in found.spec.serve


def test_template_in_tokenizer_config_counts(big: Path) -> None:
    (big / "chat_template.jinja").unlink()
    (big / "tokenizer_config.json").write_text(json.dumps({"chat_template": "<|channel>"}))
    assert derived_from(big).spec.serve["reasoning-parser"] == "gemma4"


def test_default_of_several_templates_counts(big: Path) -> None:
    (big / "chat_template.jinja").unlink()
    templates = [{"name": "rag", "template": "x"}, {"name": "default", "template": "<|channel>"}]
    (big / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert derived_from(big).spec.serve["reasoning-parser"] == "gemma4"


def test_endless_template_is_refused(big: Path) -> None:
    with (big / "chat_template.jinja").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(IntegrityError, match="that is no template"):
        derived_from(big)


def test_other_architecture_gets_no_parser(big: Path) -> None:
    change_config(big, architectures=["LlamaForCausalLM"])
    found = derived_from(big)
    assert found.spec.serve == {"limit-mm-per-prompt": {"video": 0}}
    assert found.spec.architecture.layers == 0
    assert found.spec.drafters == ("ngram",)
    assert "LlamaForCausalLM is not Gemma 4" in found.warnings[0]


def test_unified_model_needs_a_newer_engine(big: Path) -> None:
    change_config(big, architectures=["Gemma4UnifiedForConditionalGeneration"])
    served_by = derived_from(big).spec.served_by
    assert "vllm-0.32.0" in served_by
    assert "vllm-0.19.1" not in served_by


def test_model_file_is_read_back_as_the_spec(big: Path) -> None:
    found = derived_from(big)
    text = model_file(found)
    assert "# config.json: text_config" in text
    assert validate(strict_yaml.parse(text, source="mine.yaml"), ModelSpec) == found.spec


def test_name_is_made_of_the_folder() -> None:
    assert model_name("My Fine Tune_v2") == "my-fine-tune_v2"
    with pytest.raises(IntegrityError, match="no name can be made of it"):
        model_name("…")


def test_repository_keeps_its_commit(big: Path) -> None:
    weights = HubRepository(repo="owner/name", revision="a" * 40)
    found = derive(read_checkpoint(big), name="owner--name", served_name="name", weights=weights)
    assert found.spec.weights == weights
