"""Every `vllm serve` line that we render is understood by vLLM 0.19.1's own parser."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.resolution import resolve
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import build_plan
from tests.unit.rendering.plans import DOCKER_ENGINE, PROFILES

pytestmark = pytest.mark.vllm
PARSE = """
import json, sys
from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
answers = []
for argv in json.load(sys.stdin):
    parser = make_arg_parser(FlexibleArgumentParser(exit_on_error=False))
    try:
        arguments = parser.parse_args(argv)
        validate_parsed_serve_args(arguments)
        answers.append({"model": arguments.model_tag, "seqs": arguments.max_num_seqs, "len": arguments.max_model_len,
                        "names": arguments.served_model_name, "port": arguments.port})
    except (Exception, SystemExit) as error:
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def parse(engine_python: Path):
    def ask(argvs: list[tuple[str, ...]]) -> list[dict[str, object]]:
        done = subprocess.run(
            [engine_python, "-c", PARSE],
            input=json.dumps(argvs),
            env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return list(json.loads(done.stdout.splitlines()[-1]))

    return ask


def plans() -> Iterator[LaunchPlan]:
    for name in PROFILES:
        profile = library.profile(name)
        engine = DOCKER_ENGINE if name == "cpu" else profile.engine
        for model in map(library.model, listing.names("models")):
            if model.role != "target" or (model.served_by and engine not in model.served_by):
                continue
            for drafter in ("none", *(model.drafters if name != "cpu" else ())):
                choice = Deployment(model=model.name, drafter=drafter, engine=engine)
                yield build_plan(resolve(choice, profile=profile))
    seed = library.compatibility("seed")
    yield build_plan(resolve(Deployment(), profile=library.profile("spark"), compatibility=seed))


def test_every_line_is_understood(parse) -> None:
    rendered = [plan.launched("deckard-launch-test") for plan in plans()]
    answers = parse([plan.arguments for plan in rendered])
    assert len(answers) > 2 * len(PROFILES)
    for plan, answer in zip(rendered, answers, strict=True):
        assert "error" not in answer, (plan.profile, plan.model, answer)
        assert answer["model"] == plan.arguments[0]
        assert answer["names"] == [plan.served_name, "deckard-launch-test"]


def test_a_flag_that_is_not_there_is_refused(parse) -> None:
    (answer,) = parse([("/models/x", "--linear-backend", "marlin")])
    assert "error" in answer
