"""The patch set, and the vllm package that it is for, in a folder."""

from pathlib import Path

import pytest

from tests.support.patch_set import NAMES, NEW, OLD, PatchSetOnDisk, diff, manifest


@pytest.fixture
def on_disk(tmp_path: Path) -> PatchSetOnDisk:
    folder, package = tmp_path / "patches/vllm-0.19.1", tmp_path / "site/vllm"
    folder.mkdir(parents=True)
    (folder / "manifest.yaml").write_text(manifest())
    for name, target in NAMES.items():
        (folder / f"{name}.patch").write_text(diff(target, OLD[target], NEW[target]))
        path = package.parent / target
        path.parent.mkdir(parents=True)
        path.write_text(OLD[target])
    for part in ("", "v1", "v1/spec_decode", "model_executor", "model_executor/layers/quantization"):
        (package / part / "__init__.py").write_text("")
    (package / "model_executor/layers/__init__.py").write_text("")
    (package / "envs.py").write_text("NAME = 'vllm'\n")
    (package / "v1/engine").mkdir()
    (package / "v1/engine/__init__.py").write_text("")
    return PatchSetOnDisk(root=tmp_path / "patches", package=package)
