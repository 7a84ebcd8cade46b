"""Every `vllm serve` line that we render is understood by the parser of the vLLM release that it is for."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment, EngineSpec, HardwareProfile, ModelSpec
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan

pytestmark = pytest.mark.vllm
PROGRAM = Path(__file__).parents[2] / "scripts" / "parse_command_lines.py"
Answers = list[dict[str, object]]


def ask(python: Path, argvs: list[tuple[str, ...]]) -> Answers:
    done = subprocess.run(
        [python, PROGRAM],
        input=json.dumps(argvs),
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


# Gone in one of the two releases: the parser must say so.
GONE = {"0.19.1": "--linear-backend", "0.32.0": "--override-attention-dtype"}


@dataclass(frozen=True)
class Release:
    """Our command lines for a vLLM version, and its parser's answers to them and, last, to an unknown option."""

    version: str
    rendered: list[LaunchPlan]
    answers: Answers


@pytest.fixture(params=["0.19.1", "0.32.0"], scope="module")
def release(request: pytest.FixtureRequest) -> Release:
    python: Path = request.getfixturevalue(
        "engine_python" if request.param == "0.19.1" else "new_engine_python"
    )
    rendered = [plan.launched("deckard-launch-test") for plan in plans(request.param)]
    control = ("/models/x", GONE[request.param], "auto")
    return Release(request.param, rendered, ask(python, [*(plan.arguments for plan in rendered), control]))


def plans(version: str) -> Iterator[LaunchPlan]:
    """Every profile, model, engine of that version and drafter that the catalog allows together."""
    models = [model for model in map(library.model, listing.names("models")) if model.role == "target"]
    for profile in map(library.profile, listing.names("profiles")):
        for engine in map(library.engine, listing.names("engines")):
            for model in models:
                if engine.vllm_version == version and fits(profile, engine, model):
                    yield from with_drafters(profile, engine, model)
    seed = library.compatibility("seed")
    if library.engine(seed.engine).vllm_version == version:
        yield build_plan(resolve(Deployment(), profile=library.profile("spark"), compatibility=seed))


def fits(profile: HardwareProfile, engine: EngineSpec, model: ModelSpec) -> bool:
    on_cpu = profile.hardware.gpu_count == 0
    return (
        on_cpu == ("-cpu" in engine.name)
        and (not model.served_by or engine.name in model.served_by)
        and profile.hardware.architecture in ("any", *engine.architectures)
        and profile.hardware.compute_capability
        in (engine.compute_capabilities or (profile.hardware.compute_capability,))
    )


def with_drafters(profile: HardwareProfile, engine: EngineSpec, model: ModelSpec) -> Iterator[LaunchPlan]:
    for name in ("none", *model.drafters):
        speculative = None if name == "none" else library.model(name).speculative
        served_by = () if name == "none" else library.model(name).served_by
        if served_by and engine.name not in served_by:
            continue
        if speculative is None or speculative.method in engine.drafter_methods:
            choice = Deployment(model=model.name, drafter=name, engine=engine.name)
            yield build_plan(resolve(choice, profile=profile))


def test_parser_accepts_every_command(release: Release) -> None:
    assert len(release.rendered) > 2 * len(listing.names("profiles"))
    for plan, answer in zip(release.rendered, release.answers[:-1], strict=True):
        assert "error" not in answer, (plan.profile, plan.model, answer)
        assert answer["model"] == plan.arguments[0]
        assert answer["names"] == [plan.served_name, "deckard-launch-test"]
        assert answer["utilization"] in (0.8, 0.85, 0.9)  # never the release's own new default
    methods = {answer["method"] for answer in release.answers[:-1]}
    expected = {"draft_model"} if release.version == "0.19.1" else {"mtp", "dflash", "eagle3", "ngram"}
    assert methods == {None} | expected


def test_unknown_flag_is_refused(release: Release) -> None:
    assert "error" in release.answers[-1]
