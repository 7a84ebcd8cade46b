"""Shell lines contain the tokens of the plan, one by one."""

import csv
import shlex
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deckard_deploy.planning.plan import ChosenGpus
from deckard_deploy.rendering.shell import render_command, render_run
from tests.support.sample_plans import PROFILES, built_in, with_text

# No line breaks: the commands refuse them in paths.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1)


def shell_words(script: str) -> list[str]:
    """Return the arguments as bash parses them: functions that print them replace the commands."""
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"vllm() {{ printf '%s\\0' \"$@\"; }}; docker() {{ printf '%s\\0' \"$@\"; }}\n{script}",
        ],
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("profile", PROFILES)
def test_serve_line_has_plan_arguments(profile: str) -> None:
    plan = built_in(profile)
    assert shell_words(render_command(plan)) == ["serve", *plan.arguments]


@pytest.mark.parametrize("profile", PROFILES)
def test_run_line_has_plan_arguments(profile: str) -> None:
    plan = built_in(profile)
    words = shell_words(render_run(plan))
    assert plan.image is not None
    at = words.index(plan.image)
    assert words[at + 1 :] == ["serve", *plan.arguments]
    assert words[words.index("--publish") + 1] == f"127.0.0.1:{plan.port}:8000"


def test_chosen_gpus_survive_docker_csv() -> None:
    plan = built_in("b200").model_copy(update={"gpus": ChosenGpus(ids=("3", "5"))})
    words = shell_words(render_run(plan))
    # docker reads the value as a line of CSV (docker/cli, opts/gpus.go).
    assert next(csv.reader([words[words.index("--gpus") + 1]])) == ["device=3,5"]


@given(TEXT)
def test_any_text_survives_quoting(text: str) -> None:
    plan = with_text(text)
    words = shlex.split(render_run(plan), comments=True)
    assert words[-1] == text
    environment = [b for a, b in pairwise(words) if a == "--env"]
    assert f"NOTE={text}" in environment
    mounts = [b for a, b in pairwise(words) if a == "--mount"]
    assert f"source=/data/{text}" in next(csv.reader([mounts[-1]], strict=True))
