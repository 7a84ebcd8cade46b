"""The task of a checkpoint, from its architecture and the files of sentence-transformers."""

import json
from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, LocalFolder
from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights.checkpoint import read_checkpoint
from deckard_deploy.weights.derivation import DerivedModel, derive
from deckard_deploy.weights.pooling import task_of_checkpoint
from tests.support.other_models import write_embedder, write_llama, write_reranker


def derived_from(folder: Path) -> DerivedModel:
    weights = LocalFolder(folder=str(folder))
    return derive(read_checkpoint(folder), name="mine", served_name="mine", weights=weights)


def test_embedder_serves_vectors_with_its_own_limits(tmp_path: Path) -> None:
    found = derived_from(write_embedder(tmp_path / "model"))
    assert found.spec.serve == {
        "runner": "pooling", "convert": "embed",
        "max-model-len": None, "max-num-seqs": None, "max-num-batched-tokens": None,
    }  # fmt: skip
    assert found.spec.description == "BertModel, none (0.001 GB), serves vectors"
    assert found.warnings == ("the memory of BertModel is not computed",)
    assert found.spec.drafters == ()


def test_no_engine_that_reads_negative_ids_serves_vectors(tmp_path: Path) -> None:
    engines = derived_from(write_embedder(tmp_path / "model")).spec.served_by
    assert "vllm-0.32.0-cpu" in engines
    assert "vllm-0.33.0" in engines
    assert [name for name in engines if "0.19.1" in name] == []


def test_reranker_of_one_label_serves_scores(tmp_path: Path) -> None:
    found = derived_from(write_reranker(tmp_path / "model"))
    assert found.spec.serve["convert"] == "classify"
    assert found.spec.description.endswith("serves scores")


def test_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="BertForSequenceClassification answers neither with text"):
        derived_from(write_reranker(tmp_path / "model", labels=3))


def test_chat_model_with_pooling_module_serves_vectors(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "model")
    assert "runner" not in derived_from(folder).spec.serve
    modules = [{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert derived_from(folder).spec.serve["convert"] == "embed"


@pytest.mark.parametrize("engine", ["vllm-0.19.1-cpu", "vllm-0.32.0-cpu"])
def test_every_release_takes_model_that_is_no_gemma(tmp_path: Path, engine: str) -> None:
    """0.19.1 requires a limit of videos of every model."""
    model = derived_from(write_llama(tmp_path / "model")).spec
    assert resolve(Deployment(engine=engine), profile=library.profile("cpu"), model=model).model == model


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "generate"),
        ("Gemma4ForConditionalGeneration", "generate"),
        ("ChatGLMModel", "generate"),
        ("RobertaForMaskedLM", "embed"),
        ("TeleChatModel", "generate"),
        ("XLMRobertaModel", "embed"),
        ("Gemma3TextModel", "embed"),
        ("BertEmbeddingModel", "embed"),
        ("", "generate"),
        ("Unknown", "generate"),
    ],
)
def test_end_of_architecture_decides(tmp_path: Path, architecture: str, task: str) -> None:
    assert task_of_checkpoint(tmp_path, {}, architecture) == task


@pytest.mark.parametrize(
    "architecture",
    [
        "BertForTokenClassification",
        "ColBERTModernBertModel",
        "Qwen2ForRewardModel",
        "BertForSequenceClassification",
    ],
)
def test_endpoint_that_is_not_served_is_refused(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(IntegrityError, match="answers neither with text"):
        task_of_checkpoint(tmp_path, {}, architecture)


@pytest.mark.parametrize("text", ["{}", "[", '[{"type": 1}, 2]', "null"])
def test_odd_modules_are_refused_or_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    if text.startswith("[{"):
        assert task_of_checkpoint(tmp_path, {}, "LlamaForCausalLM") == "generate"
        return
    with pytest.raises(IntegrityError, match=r"modules\.json"):
        task_of_checkpoint(tmp_path, {}, "LlamaForCausalLM")
