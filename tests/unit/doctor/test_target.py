"""The part of a plan that a host is judged for."""

from pathlib import Path

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
