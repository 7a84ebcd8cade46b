"""The part of a plan that a host is judged for."""

from pathlib import Path

import pytest

from deckard_deploy.catalog import library
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.doctor.target import target_for_plan
from deckard_deploy.planning.planner import build_plan


def test_process_target_has_its_visible_gpus():
    resolved = resolve(
        Deployment(environment={"CUDA_VISIBLE_DEVICES": "3,5"}), profile=library.profile("cpu")
    )
    assert target_for_plan(resolved, build_plan(resolved), models=Path("/m")).gpu_ids == ("3", "5")


@pytest.mark.parametrize(
    "engine", ["vllm-0.33.0", "vllm-0.33.0-host", "vllm-0.33.0-cuda", "vllm-0.19.1-cuda"]
)
def test_every_engine_of_a_gpu_profile_needs_the_gpu(engine: str) -> None:
    """A process reserves no GPU, and doctor once asked nothing of the GPU then."""
    resolved = resolve(Deployment(engine=engine), profile=library.profile("h100"))
    target = target_for_plan(resolved, build_plan(resolved), models=Path("/m"))
    assert (target.needs_gpu, target.gpu, target.gpu_count) == (True, "NVIDIA H100 80GB HBM3", 1)
    assert target.needs_docker == (engine == "vllm-0.33.0")


def test_engine_of_cpu_needs_no_gpu() -> None:
    resolved = resolve(Deployment(), profile=library.profile("cpu"))
    target = target_for_plan(resolved, build_plan(resolved), models=Path("/m"))
    assert (target.needs_gpu, target.gpu) == (False, None)
