"""The detection of a profile, by `plan` and `up` without --profile."""

from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.doctor import facts as fact_files
from deckard_deploy.operations.host import evaluate_profiles, fitting_profiles
from tests.support.fake_machine import add_gpu, machine
from tests.support.rule_cases import FACTS

__all__ = ["machine"]


def test_plan_without_profile_detects_one(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan"]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "profile  cpu: no NVIDIA GPU here, so a tiny model to rehearse with; another: --profile NAME\n"
    )
    assert "tiny-gemma4 on cpu" in captured.out
    add_gpu(machine, "NVIDIA B200", "10.0", 183_359)
    assert run(["plan", "--set", "max-num-seqs=2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "profile  b200: NVIDIA B200, compute capability 10.0; another: --profile NAME\n"
    assert "deckard-31b on b200" in captured.out


def test_named_profile_is_not_detected(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_gpu(machine, "NVIDIA B200", "10.0", 183_359)
    (machine.parent / "deckard.yaml").write_text("profile: spark\n")
    assert run(["plan"]) == 0
    assert capsys.readouterr().err == "config   ./deckard.yaml\n"


@pytest.mark.parametrize("verb", ["up", "plan"])
def test_machine_without_profile_exits_3(
    verb: str, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_gpu(machine, "NVIDIA GeForce RTX 4090", "8.9", 24_564)
    assert run([verb]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: no profile is made for NVIDIA GeForce RTX 4090, x86_64",
        "  try: deckard-deploy profiles, then: deckard-deploy up --profile cpu (a rehearsal)",
    ]
    assert not (machine.parent / "home").exists()


@pytest.mark.usefixtures("machine")
def test_render_detects_the_profile_as_up_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", "command"]) == 0
    assert "profile  cpu" in capsys.readouterr().err


def test_exact_match_comes_first_and_misfits_last() -> None:
    fits = fitting_profiles(fact_files.load(FACTS / "spark-healthy.json"))
    assert (fits[0].profile, fits[0].made_for_it) == ("spark", True)
    verdicts = [fit.verdict for fit in fits[1:]]
    assert verdicts == sorted(verdicts, key=["runs", "with changes", "no"].index)


def test_default_profile_is_explained(machine: Path) -> None:
    found = evaluate_profiles(FACTS / "spark-healthy.json")
    assert (found.default, found.explanation) == (
        "spark",
        "`up` and `plan` take spark when no profile is named.",
    )
    add_gpu(machine, "NVIDIA GeForce RTX 4090", "8.9", 24_564)
    found = evaluate_profiles(None)
    assert found.default is None
    assert found.explanation.startswith("no profile is made for NVIDIA GeForce RTX 4090, x86_64; try: ")
