"""The published forms of the tiny Gemma 4, unpacked by compressed-tensors and by the layouts of vLLM's loaders."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deckard_deploy.rehearsal import gemma4, published_forms

pytestmark = pytest.mark.vllm
# Half a step, as a share of the largest weight of a row: 1 / 7 for four bits with a sign, 2 / 6 between the two largest
# codes of e2m1, 32 / 448 between the two largest of e4m3; and the rounding of the scales.
BOUNDS = {"ct-nvfp4": 1 / 6, "ct-fp8": 1 / 28, "ct-w4a16": 1 / 14, "gptq": 1 / 14, "awq": 1 / 14}
ROUNDING = 0.004


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory, new_engine_python: Path) -> dict[str, float]:
    root = tmp_path_factory.mktemp("published")
    folders = [gemma4.write(root / "exact")]
    folders += [gemma4.write(root / layout, quantization=layout) for layout in published_forms.LAYOUTS]
    # The control: the words of one linear are rolled by one.
    rolled = gemma4.write(root / "rolled", quantization="gptq")
    tensors = load_file(rolled / "model.safetensors")
    name = "model.language_model.layers.0.mlp.up_proj.qweight"
    tensors[name] = np.ascontiguousarray(np.roll(tensors[name], 1, axis=0))
    save_file(tensors, rolled / "model.safetensors", metadata={"format": "pt"})
    program = Path(__file__).with_name("unpack_forms.py")
    done = subprocess.run(
        [new_engine_python, program, *folders, rolled], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("layout", BOUNDS)
def test_unpacked_form_is_within_half_a_step(errors: dict[str, float], layout: str) -> None:
    assert 0 < errors[layout] <= BOUNDS[layout] + ROUNDING


def test_rolled_words_are_seen(errors: dict[str, float]) -> None:
    assert errors["rolled"] > 0.5
