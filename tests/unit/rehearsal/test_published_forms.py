"""The published forms of the tiny Gemma 4: their values, their names, and what is derived from them."""

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from deckard_deploy.catalog import library
from deckard_deploy.catalog.specs import LocalFolder
from deckard_deploy.operations.options import Choice
from deckard_deploy.operations.plan import view_plan
from deckard_deploy.planning.memory.fit import MemoryPlan
from deckard_deploy.rehearsal import gemma4, published_forms
from deckard_deploy.rehearsal.published_forms import GROUP_SIZE, LAYOUTS, Layout, codes_and_scales
from deckard_deploy.weights.checkpoint import read_checkpoint
from deckard_deploy.weights.derivation import derive
from deckard_deploy.weights.inspection import inspect
from tests.support.recording_reporter import RecordingReporter

QUANTIZATIONS = {
    "ct-nvfp4": "compressed-tensors",
    "ct-fp8": "compressed-tensors",
    "ct-w4a16": "compressed-tensors",
    "gptq": "gptq",
    "awq": "awq",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, Path]:
    root = tmp_path_factory.mktemp("published")
    return {layout: gemma4.write(root / layout, quantization=layout) for layout in LAYOUTS}


@pytest.fixture
def weight() -> NDArray[np.float32]:
    values = np.random.default_rng(1).normal(0, 1, (16, 2 * GROUP_SIZE)).astype(np.float32)
    values[3, :GROUP_SIZE] = 0
    return values


def test_codes_are_within_half_a_step(weight: NDArray[np.float32]) -> None:
    codes, scales = codes_and_scales(weight, np.float16)
    assert codes.max() <= 15
    steps = np.repeat(scales.astype(np.float32), GROUP_SIZE, axis=1)
    unpacked = (codes.astype(np.float32) - 8) * steps
    assert np.abs(unpacked - weight).max() <= steps.max() * 0.51
    assert not unpacked[3, :GROUP_SIZE].any()


def test_words_hold_the_columns_in_the_order_of_each_form(weight: NDArray[np.float32]) -> None:
    codes, _ = codes_and_scales(weight, ml_dtypes.bfloat16)
    first = codes[0, :8]
    name = "model.language_model.layers.0.mlp.up_proj"
    packed = {
        layout: published_forms.quantize({f"{name}.weight": weight}, layout)
        for layout in ("ct-w4a16", "gptq", "awq")
    }

    def nibbles(word: int) -> list[int]:
        return [(word >> shift) & 15 for shift in range(0, 32, 4)]

    assert nibbles(int(packed["ct-w4a16"][f"{name}.weight_packed"][0, 0])) == first.tolist()
    assert nibbles(int(packed["gptq"][f"{name}.qweight"][0, 0])) == first.tolist()
    assert packed["gptq"][f"{name}.qzeros"].tolist() == [[0x77777777] * 2] * 2
    column = codes[:8, 0]  # AWQ packs outputs, and each word begins with the columns 0, 2, 4, 6
    assert nibbles(int(packed["awq"][f"{name}.qweight"][0, 0])) == column[[0, 2, 4, 6, 1, 3, 5, 7]].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_form_is_sound_and_derived(folders: dict[Layout, Path], layout: Layout) -> None:
    assert inspect(folders[layout]).faults == ()
    found = read_checkpoint(folders[layout])
    derived = derive(found, name="m", served_name="m", weights=LocalFolder(folder=str(folders[layout])))
    assert derived.warnings == ()
    spec = derived.spec
    assert spec.quantization == QUANTIZATIONS[layout]
    assert spec.architecture == library.model("tiny-gemma4").architecture
    file = folders[layout] / "model.safetensors"
    assert sum(spec.component_bytes.values()) == sum(one.bytes for one in found.tensors.values())
    assert file.stat().st_size - sum(spec.component_bytes.values()) < 100_000  # the header


def test_gptq_that_vllm_does_not_load_is_warned_of(folders: dict[Layout, Path]) -> None:
    found = read_checkpoint(folders["gptq"])
    plain = {key: value for key, value in found.quantization.items() if key != "modules_in_block_to_quantize"}
    weights = LocalFolder(folder=str(folders["gptq"]))
    derived = derive(replace(found, quantization=plain), name="m", served_name="m", weights=weights)
    assert [line for line in derived.warnings if "GPTQ of layers that have no v_proj" in line]


@pytest.mark.parametrize("engine", ["vllm-0.33.0", "vllm-0.19.1"])
def test_forms_are_planned_for_the_engines_of_gpus(
    folders: dict[Layout, Path], engine: str, tmp_path: Path
) -> None:
    """The KV cache depends on the architecture alone."""
    settings = ("drafter=none", "max-model-len=512", "max-num-seqs=2", f"engine={engine}")

    def planned(model: str) -> MemoryPlan:
        choice = Choice(profile="h200", settings=(f"model={model}", *settings))
        memory = view_plan(choice, tmp_path / "state", RecordingReporter()).planned.memory
        assert isinstance(memory, MemoryPlan)
        return memory

    exact = planned("tiny-gemma4")
    for folder in folders.values():
        assert planned(str(folder)).cache == exact.cache
