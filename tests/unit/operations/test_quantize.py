"""`quantize`: what it writes, what it refuses before anything is installed, and what a failure leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.doctor.facts import Gpu, HostFacts
from deckard_deploy.errors import (
    BadInputError,
    DeployError,
    DoesNotFitError,
    EnvironmentUnfitError,
    IntegrityError,
)
from deckard_deploy.operations.derived_models import derive_model
from deckard_deploy.operations.inspect import inspect_checkpoint
from deckard_deploy.operations.quantize import QuantizeRequest, plan_quantization, quantize
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.safetensors_header import read_header
from tests.support import checkpoint_shapes, fake_modelopt
from tests.support.recording_reporter import RecordingReporter

CPU = HostFacts()
H200 = HostFacts(gpus=(Gpu(index=0, name="NVIDIA H200", compute_capability="9.0", memory_total_mib=143771),))
A100 = HostFacts(
    gpus=(Gpu(index=0, name="NVIDIA A100-SXM4-80GB", compute_capability="8.0", memory_total_mib=81920),)
)
SPARK = HostFacts(gpus=(Gpu(index=0, name="NVIDIA GB10", compute_capability="12.1"),))
PLENTY = "MemTotal: 999999999 kB\nMemAvailable: 999999999 kB\n"
LITTLE = "MemTotal: 999999999 kB\nMemAvailable: 100 kB\n"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return gemma4.write(tmp_path / "tiny")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """What ModelOpt exports of `tiny`: no tokenizer, no template."""
    folder = gemma4.write(tmp_path / "packed", quantization="nvfp4")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "processor_config.json"):
        (folder / name).unlink()
    return folder


def meminfo(tmp_path: Path, text: str = PLENTY) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(text)
    return path


def request(path: Path, **changed: Any) -> QuantizeRequest:
    values: dict[str, Any] = {
        "source": str(path),
        "recipe": "nvfp4",
        "calibrate": "builtin",
        "samples": None,
        "output": path.parent / "new",
    }
    return QuantizeRequest(**(values | changed))


def run(source: Path, state: Path, **changed: Any) -> dict[str, Any]:
    asked = request(source, **changed)
    plan = plan_quantization(asked, state, facts=CPU, meminfo=meminfo(source.parent))
    return quantize(plan, state, RecordingReporter())


def left_beside(source: Path) -> list[str]:
    return [path.name for path in source.parent.iterdir() if path.name.startswith((".tmp-", "new"))]


def test_checkpoint_is_complete_and_accepted(tiny: Path, export: Path, state: Path):
    fake_modelopt.install(state / "engines", export)
    written = run(tiny, state)
    new = tiny.parent / "new"
    assert left_beside(tiny) == ["new"]
    for name in ("tokenizer.json", "chat_template.jinja", "processor_config.json", "generation_config.json"):
        assert (new / name).read_bytes() == (tiny / name).read_bytes()
    config, source = (json.loads((folder / "config.json").read_text()) for folder in (new, tiny))
    assert config.pop("quantization_config")["quant_algo"] == "NVFP4"
    assert config == source
    assert json.loads((new / "quantization-report.json").read_text()) == written
    assert written["calibration"]["for_rehearsals_only"]
    assert "do not publish" in (new / "README.md").read_text()
    found = inspect_checkpoint(str(new), None, state).found
    assert (found.quantization, found.faults, found.nan_scales) == ("nvfp4", (), 0)
    manifest = ModelFolder(new).manifest()
    assert manifest is not None
    assert manifest.repo == "quantization of tiny"
    assert ModelFolder(new).check(list(manifest.files), record=False) == []
    assert {file.path for file in manifest.files} == {path.name for path in new.iterdir() if path.is_file()}
    derived = derive_model(str(new), None, RecordingReporter())
    assert derived.warnings == ()


def test_nan_scales_are_repaired_and_counted(tiny: Path, export: Path, state: Path):
    path, tensor = export / "model.safetensors", "model.language_model.layers.0.mlp.up_proj.weight_scale"
    with path.open("r+b") as file:
        file.seek(read_header(path)[tensor].begin)
        file.write(b"\x7f\xff")
    fake_modelopt.install(state / "engines", export)
    written = run(tiny, state)
    assert written["nan_scales"]["found"] == 2
    assert inspect_checkpoint(str(tiny.parent / "new"), None, state).found.nan_scales == 0


def test_own_texts_are_recorded_by_hash(tiny: Path, export: Path, state: Path):
    fake_modelopt.install(state / "engines", export)
    data = tiny.parent / "data.jsonl"
    rows = [{"text": f"text {number}"} for number in range(9)]
    rows.append({"messages": [{"role": "user", "content": "Hi"}]})  # type: ignore[dict-item]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    calibration = run(tiny, state, calibrate=str(data), samples=4)["calibration"]
    assert (calibration["name"], calibration["texts"], calibration["of"]) == ("data.jsonl", 4, 10)
    digest = subprocess.run(["sha256sum", data], capture_output=True, text=True, check=True).stdout
    assert calibration["sha256"] == digest.split()[0]
    assert not calibration["for_rehearsals_only"]


@pytest.mark.parametrize("recipe", ["awq-lite", "awq-full", "svdquant"])
def test_search_without_gpu_is_refused_before_an_install(tiny: Path, state: Path, recipe: str):
    with pytest.raises(EnvironmentUnfitError, match=f"recipe {recipe} needs a CUDA GPU"):
        plan_quantization(request(tiny, recipe=recipe), state, facts=CPU, meminfo=meminfo(tiny.parent))
    assert list(state.iterdir()) == []


def test_visible_gpu_is_the_one_that_is_checked(
    tiny: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked, enough = request(tiny, recipe="awq-lite"), meminfo(tmp_path)
    old = A100.gpus[0].model_copy(update={"compute_capability": "7.0"})
    full = H200.gpus[0].model_copy(update={"index": 1, "memory_total_mib": 1})
    with_old = HostFacts(gpus=(old, full))
    for visible, message in (
        ("1", "quantizing needs"),
        ("0", "compute capability"),
        ("", "needs a CUDA GPU"),
        ("7", "a number of one of 2 GPUs"),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(DeployError, match=message):
            plan_quantization(asked, state, facts=with_old, meminfo=enough)


def test_memory_of_a_spark_is_that_of_the_machine(tiny: Path, state: Path):
    with pytest.raises(DoesNotFitError, match=r"GPU 0 has 0\.0 GiB free"):
        plan_quantization(request(tiny), state, facts=SPARK, meminfo=meminfo(tiny.parent, LITTLE))


def test_31b_does_not_fit_a_small_gpu(tmp_path: Path, state: Path):
    big = shapes_of_31b(tmp_path)
    small = H200.gpus[0].model_copy(update={"memory_total_mib": 24576, "name": "NVIDIA GeForce RTX 4090"})
    with pytest.raises(DoesNotFitError) as caught:
        plan_quantization(
            request(big, recipe="awq-full"), state, facts=HostFacts(gpus=(small,)), meminfo=meminfo(tmp_path)
        )
    assert "quantizing needs" in caught.value.message
    assert "GPU 0 has 24.0 GiB free" in caught.value.message
    assert "h200" in caught.value.hint
    assert "b200" in caught.value.hint
    assert "rtx-5090" not in caught.value.hint


def shapes_of_31b(tmp_path: Path) -> Path:
    """The 31B in BF16: real headers, and no data."""
    folder = checkpoint_shapes.write(tmp_path / "big", checkpoint_shapes.BIG)
    for path in (*folder.glob("*.safetensors*"), folder / "hf_quant_config.json"):
        path.unlink()
    entries: list[checkpoint_shapes.Entry] = []
    for name, dtype, shape in checkpoint_shapes.tensors(checkpoint_shapes.BIG):
        if dtype == "U8":
            entries.append((name, "BF16", (shape[0], 2 * shape[1])))
        elif not name.endswith(("_scale", "_scale_2")):
            entries.append((name, dtype, shape))
    checkpoint_shapes.write_holes(folder / "model.safetensors", entries)
    (folder / "config.json").write_text(json.dumps(checkpoint_shapes.config(checkpoint_shapes.BIG)))
    return folder


def spoiled_config(**changes: object) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | changes))

    return spoil


def without(name: str) -> Callable[[Path], None]:
    return lambda source: (source / name).unlink()


def file_of(name: str, content: bytes) -> Callable[[Path], None]:
    def write(source: Path) -> None:
        (source.parent / name).write_bytes(content)

    return write


def experts(source: Path) -> None:
    shutil.rmtree(source)
    gemma4.write(source, form="experts")


def packed(source: Path) -> None:
    shutil.rmtree(source)
    gemma4.write(source, quantization="nvfp4")


def nothing(_source: Path) -> None:
    pass


BAD: dict[str, tuple[Callable[[Path], None], dict[str, Any], type[DeployError], str]] = {
    "no folder": (nothing, {"source": "./nowhere"}, BadInputError, "no such folder"),
    "no config": (without("config.json"), {}, IntegrityError, "config.json"),
    "no weights": (without("model.safetensors"), {}, IntegrityError, "no safetensors file"),
    "no tokenizer": (without("tokenizer.json"), {}, IntegrityError, "tokenizer.json is missing"),
    "no processor": (without("processor_config.json"), {}, IntegrityError, "processor_config.json is missing"),
    "no template": (without("chat_template.jinja"), {}, IntegrityError, "no chat template"),
    "another architecture": (
        spoiled_config(architectures=["LlamaForCausalLM"]), {}, BadInputError, "'LlamaForCausalLM' is not Gemma 4",
    ),
    "quantized already": (packed, {}, BadInputError, "is quantized already (NVFP4)"),
    "experts": (experts, {}, BadInputError, "has experts"),
    "code in config": (spoiled_config(auto_map={"AutoModel": "x.Y"}), {}, IntegrityError, "auto_map"),
    "pickle": (lambda s: (s / "pytorch_model.bin").touch(), {}, IntegrityError, "could run code"),
    "module": (lambda s: (s / "modeling.py").touch(), {}, IntegrityError, "could run code"),
    "truncated": (lambda s: os.truncate(s / "model.safetensors", 4000), {}, IntegrityError, "model.safetensors"),
    "link out": (lambda s: (s / "more.json").symlink_to("/etc/hostname"), {}, IntegrityError, "link out"),
    "no data": (nothing, {"calibrate": "nowhere.txt"}, BadInputError, "nowhere.txt: No such file"),
    "data folder": (nothing, {"calibrate": "."}, BadInputError, "not a regular file"),
    "empty data": (file_of("d.txt", b""), {"calibrate": "d.txt"}, BadInputError, "no text in it"),
    "blank data": (file_of("d.txt", b" \n\n"), {"calibrate": "d.txt"}, BadInputError, "no text in it"),
    "binary data": (file_of("d.txt", b"\xff\x00"), {"calibrate": "d.txt"}, BadInputError, "not UTF-8 text"),
    "not JSON": (file_of("d.jsonl", b"{\n"), {"calibrate": "d.jsonl"}, BadInputError, "d.jsonl:1: not JSON"),
    "no object": (file_of("d.jsonl", b"[1]\n"), {"calibrate": "d.jsonl"}, BadInputError, "d.jsonl:1: not an object"),
    "other keys": (
        file_of("d.jsonl", b'{"article": "a"}\n'), {"calibrate": "d.jsonl"}, BadInputError, "keys: article",
    ),
    "odd role": (
        file_of("d.jsonl", b'{"messages": [{"role": "root", "content": "x"}]}\n'),
        {"calibrate": "d.jsonl"}, BadInputError, "d.jsonl:1: a message without a role",
    ),
    "unknown recipe": (nothing, {"recipe": "awq-medium"}, BadInputError, "no recipe named 'awq-medium'"),
    "no recipe file": (nothing, {"recipe": "mine.yaml"}, BadInputError, "mine.yaml: No such file"),
    "wrong key": (file_of("r.yaml", b"foo: x\n"), {"recipe": "r.yaml"}, BadInputError, "r.yaml:1: foo: unknown key"),
    "output there": (lambda s: (s.parent / "new").mkdir(), {}, BadInputError, "is there already"),
    "output nowhere": (nothing, {"output": Path("no/where")}, BadInputError, "is not a folder"),
    "output inside": (nothing, {"output": Path("tiny/new")}, BadInputError, "which is never written to"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    tiny: Path, state: Path, monkeypatch: pytest.MonkeyPatch, case: str
):
    spoil, changed, error, words = BAD[case]
    monkeypatch.chdir(tiny.parent)
    spoil(tiny)
    before = sorted(tiny.parent.rglob("*"))
    asked = request(Path("tiny"), **({"source": "./tiny", "output": Path("new")} | changed))
    with pytest.raises(error) as caught:
        plan_quantization(asked, state, facts=CPU)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert sorted(tiny.parent.rglob("*")) == before


def test_too_little_memory_is_exit_9(tiny: Path, state: Path):
    with pytest.raises(DoesNotFitError, match=r"this machine has 0\.0 GiB free") as caught:
        plan_quantization(request(tiny), state, facts=CPU, meminfo=meminfo(tiny.parent, LITTLE))
    assert caught.value.exit_code == 9


def test_full_disk_is_refused_before_an_install(tiny: Path, state: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tiny)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        EnvironmentUnfitError, match="bytes for the export and its finished copy, and 1,000 are free"
    ):
        plan_quantization(request(tiny), state, facts=CPU, meminfo=meminfo(tiny.parent))
    assert list(state.iterdir()) == []


def test_old_gpu_is_refused_for_a_search(tiny: Path, state: Path):
    with pytest.raises(EnvironmentUnfitError, match=r"compute capability 8\.9 or later, and NVIDIA A100"):
        plan_quantization(request(tiny, recipe="svdquant"), state, facts=A100, meminfo=meminfo(tiny.parent))


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ({"fail": "ValueError: odd shape"}, (EnvironmentUnfitError, "exit code 1), and nothing was written: Va")),
        ({"fail": "torch.OutOfMemoryError: CUDA out of memory"}, (DoesNotFitError, "ran out of memory")),
        ({"fail": "OSError: [Errno 28] No space left on device"}, (EnvironmentUnfitError, "no space left on the disk")),
        ({"killed": True}, (DoesNotFitError, "ran out of memory (exit code -9)")),
        ({"errors": {"layers.0.q": 1.3}}, (IntegrityError, "layers.0.q: the exported weight differs from the source")),
        ({"errors": {"layers.0.q": float("nan")}}, (IntegrityError, "differs from the source by nan")),
    ],
    ids=["crash", "out of GPU memory", "full disk", "killed", "wrong weight", "NaN weight"],
)  # fmt: skip
def test_failure_leaves_nothing(
    tiny: Path, export: Path, state: Path, behaviour: dict[str, Any], expected: tuple[type[DeployError], str]
):
    error, words = expected
    fake_modelopt.install(state / "engines", export, **behaviour)
    with pytest.raises(error) as caught:
        run(tiny, state)
    assert words in caught.value.message
    assert left_beside(tiny) == []
    assert (state / "quantize.log").exists()


def test_export_without_a_tensor_is_refused(tiny: Path, export: Path, state: Path):
    path = export / "model.safetensors"
    path.write_bytes(
        path.read_bytes().replace(
            b'"model.language_model.norm.weight"', b'"model.language_model.morm.weight"'
        )
    )
    fake_modelopt.install(state / "engines", export)
    with pytest.raises(IntegrityError, match=r"1 tensors too few, such as model\.language_model\.norm"):
        run(tiny, state)
    assert left_beside(tiny) == []


@pytest.mark.parametrize("phase", fake_modelopt.PHASES)
def test_killed_run_leaves_no_folder_that_up_takes(tiny: Path, export: Path, state: Path, phase: str):
    fake_modelopt.install(state / "engines", export, stop_at=phase)
    arguments = [
        "quantize",
        str(tiny),
        "--recipe",
        "nvfp4",
        "--calibrate",
        "builtin",
        "-o",
        str(tiny.parent / "new"),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "deckard_deploy", *arguments],
        env={**os.environ, "DECKARD_HOME": str(state), "PATH": os.defpath},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr or ():
            if line.startswith(f"quantize {phase}:"):
                break
        process.kill()
    assert not (tiny.parent / "new").exists()
    assert all(name.startswith(".tmp-") for name in left_beside(tiny))
    shutil.rmtree(state / "engines")
    fake_modelopt.install(state / "engines", export)
    run(tiny, state)
    assert left_beside(tiny) == ["new"]
