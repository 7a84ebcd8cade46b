"""The committed locks of the engines."""

import re
from pathlib import Path

import pytest

from deckard_deploy.running.process.locks import LOCKS, QUANTIZERS

LOCK_FILES = sorted(
    file
    for lock in (*LOCKS.values(), QUANTIZERS["modelopt-0.47.0-cpu"])
    for file in lock.folder.glob("*.txt")
)


@pytest.mark.parametrize("file", LOCK_FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_locked_requirements_are_pinned_and_hashed(file: Path):
    blocks = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", "").splitlines()
    assert blocks
    for block in blocks:
        assert re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}$", block), block
        assert "://" not in block


@pytest.mark.parametrize(
    ("name", "vllm", "torch"),
    [
        ("vllm-0.19.1-cpu", "0.19.1", "2.10.0"),
        ("vllm-0.32.0-cpu", "0.32.0", "2.13.0"),
        ("vllm-0.19.1-cuda", "0.19.1", "2.10.0"),
        ("vllm-0.33.0-cuda", "0.33.0", "2.14.0"),
    ],
)
def test_committed_lock_is_complete(name: str, vllm: str, torch: str):
    lock = LOCKS[name]
    engine = (lock.folder / "engine.txt").read_text()
    assert f"\nvllm{'-cpu' if name.endswith('-cpu') else ''}=={vllm} " in engine
    assert "\ntorch==" not in engine
    assert "\ntorchvision==" not in engine
    files = {file.name: file.read_text() for file in lock.folder.glob("*.txt")}
    assert {route.requirements for route in lock.routes} | {"engine.txt"} == set(files)
    for text in (text for file, text in files.items() if file != "engine.txt"):
        assert re.search(rf"^torch=={re.escape(torch)}(\+cpu)? ", text, re.MULTILINE)


def test_locked_modelopt_is_the_one_without_nan_scales():
    """ModelOpt clamps block scales since 0.45.0, and its [hf] extra declares transformers below 5.15."""
    for lock in QUANTIZERS.values():
        text = (lock.folder / "engine.txt").read_text()
        assert "\nnvidia-modelopt==0.47.0 " in text
        assert "\ntransformers==5.14.1 " in text
        assert "\ntorch==" not in text
        for route in lock.routes:
            assert re.search(
                r"^torch==2\.13\.0(\+cpu)? ", (lock.folder / route.requirements).read_text(), re.MULTILINE
            )


def test_modelopt_on_a_gpu_machine_has_the_cuda_pytorch():
    routes = QUANTIZERS["modelopt-0.47.0-cuda"].routes
    assert {route.requirements for route in routes} == {"torch-pypi.txt"}
