"""The forms of Gemma 4 in small, in the real vLLM 0.32.0 on a CPU: script, KV cache blocks and tokens.

A mixture of experts as 26B-A4B, and per-layer embeddings with shared KV layers as E4B.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import view_plan
from deckard_deploy.planning.memory.fit import MemoryPlan
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.rehearsal.script import ANSWER_TEXT, PLAIN_TEXT, THOUGHT_TEXT
from tests.support.recording_reporter import RecordingReporter

pytestmark = pytest.mark.vllm
THINKING = f"<|channel>thought\n{THOUGHT_TEXT}<channel|>{ANSWER_TEXT}"
# As tests/e2e/tiny_engine.py and the engine's defaults (1,024 tokens a step on a CPU).
SETTINGS = (
    "engine=vllm-0.32.0-cpu",
    "drafter=none",
    "max-model-len=512",
    "max-num-seqs=2",
    "max-num-batched-tokens=1024",
    "environment.VLLM_CPU_KVCACHE_SPACE=1",
)


def damaged(folder: Path, copy: Path, part: str, damage: Callable[[Any], Any]) -> Path:
    """Return a copy of a checkpoint with one kind of tensor damaged."""
    copy.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (copy / file.name).symlink_to(file)
    tensors = load_file(folder / "model.safetensors")
    found = [name for name in tensors if name.endswith(part)]
    assert found
    for name in found:
        tensors[name] = np.ascontiguousarray(damage(tensors[name]))
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("forms")
    experts = gemma4.write(root / "experts", form="experts")
    per_layer = gemma4.write(root / "per-layer", form="per-layer", family="small")
    return {
        "experts": experts,
        "per-layer": per_layer,
        # The controls: each part is needed for the script.
        "misrouted": damaged(
            experts, root / "misrouted", "router.proj.weight", lambda rows: np.roll(rows, 1, axis=0)
        ),
        "unembedded": damaged(per_layer, root / "unembedded", "embed_tokens_per_layer.weight", np.zeros_like),
    }


@pytest.fixture(scope="module")
def engine_log(folders: dict[str, Path], new_engine_python: Path) -> str:
    program = Path(__file__).with_name("tiny_engine.py")
    done = subprocess.run(
        [new_engine_python, program, *folders.values()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def answers(engine_log: str) -> Any:
    return json.loads(next(line for line in engine_log.splitlines() if line.startswith('{"module"')))


@pytest.mark.parametrize("form", ["experts", "per-layer"])
def test_form_follows_the_script(answers: Any, form: str) -> None:
    assert answers[form] == {"plain": PLAIN_TEXT, "thinking": THINKING}


@pytest.mark.parametrize("control", ["misrouted", "unembedded"])
def test_damaged_form_loses_the_script(answers: Any, control: str) -> None:
    assert answers[control]["plain"] != PLAIN_TEXT


def test_plan_has_the_tokens_of_the_log(folders: dict[str, Path], engine_log: str, tmp_path: Path) -> None:
    reported = re.findall(r"KV cache size: ([\d,]+) tokens, Maximum concurrency .*?: ([\d.]+)x", engine_log)
    # vLLM logs an equal line once: the controls have the same cache.
    for form, (tokens, concurrency) in zip(("experts", "per-layer"), reported, strict=True):
        choice = Choice(profile="cpu", settings=(f"model={folders[form]}", *SETTINGS))
        memory = view_plan(choice, tmp_path / "state", RecordingReporter()).planned.memory
        assert isinstance(memory, MemoryPlan)
        assert f"{memory.tokens:,}" == tokens
        assert f"{memory.concurrency:.2f}" == concurrency
