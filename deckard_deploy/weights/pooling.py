"""The task of a checkpoint: text, vectors of texts, or scores of documents, as vLLM chooses it.

vLLM 0.32.0, config/model.py: _get_default_runner_type and _SUFFIX_TO_DEFAULTS; 0.19.1 has the same rules.
"""

from pathlib import Path
from typing import Any

from deckard_deploy.catalog.specs import Task
from deckard_deploy.errors import IntegrityError
from deckard_deploy.weights.strict_json import read_array

MODULES = "modules.json"  # of sentence-transformers
# 0.32.0, transformers_utils/config.py: _ST_POOLING_MODULE_TYPES.
_POOLING_MODULES = (
    "sentence_transformers.models.Pooling",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
)
# Names whose end would say something else (model_executor/models/registry.py of both releases).
_BY_NAME: dict[str, Task] = {
    **dict.fromkeys(
        (
            "AquilaModel",
            "ChatGLMModel",
            "MiDashengLMModel",
            "MossAudioModel",
            "Qwen2_5OmniModel",
            "UltravoxModel",
        ),
        "generate",
    ),
    "BertForMaskedLM": "embed",
    "RobertaForMaskedLM": "embed",
}
# The end of an architecture's name; the first that fits counts. None: labels, rewards or one vector for each token,
# for which there is no endpoint here.
_BY_END: tuple[tuple[str, Task | None], ...] = (
    ("ForCausalLM", "generate"),
    ("ForConditionalGeneration", "generate"),
    ("ChatModel", "generate"),
    ("LMHeadModel", "generate"),
    ("ForTextEncoding", "embed"),
    ("EmbeddingModel", "embed"),
    ("ForSequenceClassification", "score"),
    ("ForTokenClassification", None),
    ("ForAudioClassification", None),
    ("ForImageClassification", None),
    ("ForVideoClassification", None),
    ("ClassificationModel", None),
    ("ForRewardModeling", None),
    ("RewardModel", None),
    ("Model", "embed"),
)
_LATE_INTERACTION = ("ColBERT", "HF_ColBERT", "ColQwen", "OpsColQwen", "ColModernVBert", "ColPali")


def task_of_checkpoint(folder: Path, config: dict[str, Any], architecture: str) -> Task:
    """Return the task. config: of config.json. Raises IntegrityError for a model that has no endpoint here."""
    if _has_pooling_module(folder / MODULES):
        return "embed"
    task = _task_of_name(architecture)
    if task is None or (task == "score" and _label_count(config) != 1):
        raise IntegrityError(
            f"{folder}: {architecture} answers neither with text nor with one vector or one score of a text, and no "
            "other model is served",
            hint="another model",
        )
    return task


def _task_of_name(architecture: str) -> Task | None:
    if architecture in _BY_NAME:
        return _BY_NAME[architecture]
    if architecture.startswith(_LATE_INTERACTION):
        return None
    for end, task in _BY_END:
        if architecture.endswith(end):
            return task
    return "generate"


def _has_pooling_module(path: Path) -> bool:
    if not path.exists():
        return False
    modules = read_array(path)
    return any(isinstance(module, dict) and module.get("type") in _POOLING_MODULES for module in modules)


def _label_count(config: dict[str, Any]) -> int:
    """Return the number of labels: of id2label, or of num_labels, or 2 (transformers, PreTrainedConfig)."""
    labels = config.get("id2label")
    if isinstance(labels, dict):
        return len(labels)
    count = config.get("num_labels")
    return count if type(count) is int else 2
