"""lm_head quantized at load by the plugin, in the real vLLM 0.32.0 (CPU build), with a drafter."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.catalog.specs import LM_HEAD_NAMES
from deckard_deploy.patching import plugin
from deckard_deploy.rehearsal import assistant, gemma4
from deckard_deploy.rehearsal.script import PLAIN_TEXT
from tests.e2e import patched

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def found(new_engine_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one engine is and says that was loaded by the plugin for NVFP4."""
    folder = tmp_path_factory.mktemp("lm-head")
    target = gemma4.write(folder / "tiny", quantization="nvfp4_awq")
    good = assistant.write(folder / "good", kind="good")
    wheel = plugin.build(LM_HEAD_NAMES["nvfp4"], folder / plugin.WHEEL)
    said = patched.run(new_engine_python, "lm_head_engine.py", [f"{target}+{good}"], wheel)
    assert said["module"].startswith(str(wheel))
    return said


def divergence(before: list[list[float]], after: list[list[float]]) -> float:
    """Return the largest Kullback-Leibler divergence of a position."""
    return max(
        sum(math.exp(p) * (p - q) for p, q in zip(*rows, strict=True))
        for rows in zip(before, after, strict=True)
    )


def test_target_is_loaded_with_quantized_head(found: dict[str, Any]) -> None:
    assert (found["head"], found["rounded"], found["table_kept"]) == ("NvFp4Head", True, True)


def test_drafter_keeps_its_own_head(found: dict[str, Any]) -> None:
    assert found["drafter"] == "UnquantizedEmbeddingMethod"
    counts = [found[head]["accepted"] for head in ("loaded", "plain", "fp8")]
    assert counts[0] > 0
    assert counts == [counts[0], 2 * counts[0], 3 * counts[0]]  # the counters run on: as many in each answer


@pytest.mark.parametrize(("head", "largest"), [("loaded", 0.05), ("fp8", 0.001)])
def test_text_is_that_of_plain_head(found: dict[str, Any], head: str, largest: float) -> None:
    assert found[head]["text"] == found["plain"]["text"] == PLAIN_TEXT
    # Seen: 6e-3 in NVFP4 and 3e-7 in FP8. It is 0 if the head was not quantized.
    assert 0 < divergence(found["plain"]["log_probabilities"], found[head]["log_probabilities"]) < largest


def test_quantized_head_is_refused(found: dict[str, Any]) -> None:
    assert found["again"] == "lm_head is quantized already, by NvFp4Head"


def test_kernel_that_is_far_off_is_refused(found: dict[str, Any]) -> None:
    assert re.fullmatch(
        r"lm_head nvfp4 by Rounded: the logits are off by 0\.\d+ of their norm", found["far off"]
    )
