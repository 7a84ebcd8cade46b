"""The `doctor` verb on recorded facts, to the letter; and what `up` asks of it.

The screens under tests/unit/doctor/golden are the verb's own output:
DECKARD_HOME=/srv/deckard deckard-deploy doctor [--profile NAME] --facts tests/unit/doctor/facts/NAME.json
"""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.json_output import checked
from tests.support.rule_cases import FACTS

GOLDEN = FACTS.with_name("golden")
SCREENS = sorted(path.stem for path in GOLDEN.glob("*.txt"))
FAILS = {"spark-orphan-engine.spark", "container-host.spark", "laptop-no-docker.spark", "h100-no-docker.h100"}


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No deckard.yaml, no programs, and the folder of the golden screens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DECKARD_HOME", "/srv/deckard")


def arguments(screen: str) -> list[str]:
    name, _, profile = screen.partition(".")
    return [
        "doctor",
        "--facts",
        str(FACTS / f"{name}.json"),
        *(["--profile", profile] if profile != "any" else []),
    ]


@pytest.mark.parametrize("screen", SCREENS)
def test_screen_of_recorded_facts(screen: str, capsys: pytest.CaptureFixture[str]):
    assert run(arguments(screen)) == (3 if screen in FAILS else 0)
    captured = capsys.readouterr()
    assert captured.out == (GOLDEN / f"{screen}.txt").read_text()
    assert captured.err == ""
    too_wide = [line for line in captured.out.splitlines() if len(line) > 80 and " " in line.strip()]
    assert too_wide == []


def test_every_facts_file_has_a_screen():
    assert {screen.partition(".")[0] for screen in SCREENS} == {path.stem for path in FACTS.glob("*.json")}
    assert set(SCREENS) > FAILS


@pytest.mark.parametrize("screen", SCREENS)
def test_json_has_the_same_findings(screen: str, capsys: pytest.CaptureFixture[str]):
    code = run([*arguments(screen), "--json"])
    said = checked("doctor", capsys.readouterr().out)
    assert said["failed"] == (code == 3)
    assert said["profile"] == (None if screen.endswith(".any") else screen.partition(".")[2])
    text = (GOLDEN / f"{screen}.txt").read_text()
    assert [finding["rule"] for finding in said["findings"]] == [
        line.split()[1]
        for line in text.splitlines()
        if line.split()[:1] and line.split()[0] in {"fail", "warn", "info", "ok"}
    ]
    assert all(set(f) == {"severity", "rule", "what", "why", "source", "fix"} for f in said["findings"])


def test_saved_facts_give_the_same_screen(capsys: pytest.CaptureFixture[str]):
    code = run(["doctor", "--profile", "spark", "--save", "facts.json"])
    first = capsys.readouterr().out
    assert run(["doctor", "--profile", "spark", "--facts", "facts.json"]) == code == 3
    assert capsys.readouterr().out == first
    assert "docker is not installed" in first
    assert "nvidia-smi is not installed" in first


def test_cpu_profile_needs_no_docker_or_gpu(capsys: pytest.CaptureFixture[str]):
    run(["doctor", "--profile", "cpu", "--json"])
    rules = {finding["rule"] for finding in checked("doctor", capsys.readouterr().out)["findings"]}
    assert rules.isdisjoint({"docker", "gpu", "compose", "driver", "gpu-runtime"})
    assert "port" in rules


def test_control_characters_of_facts_are_removed(tmp_path: Path, capsys):
    (tmp_path / "f.json").write_text(json.dumps({"gpus": [], "gpu_problem": "a\x1b[2J\x07b\u202e"}))
    run(["doctor", "--facts", "f.json"])
    assert all(letter.isprintable() or letter == "\n" for letter in capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--facts", "none.json"], "none.json: No such file or directory"),
        (["--profile", "sparc"], "did you mean 'spark'?"),
        (["--set", "max-num-seqs=2"], "no hardware profile was named"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], text: str, capsys: pytest.CaptureFixture[str]):
    assert run(["doctor", *words]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert text in captured.err


def test_deckard_yaml_of_folder_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "deckard.yaml").write_text("profile: spark\npublish:\n  expose: 192.168.1.20\n")
    assert run(["doctor", "--facts", str(FACTS / "spark-healthy.json")]) == 0
    assert "192.168.1.20, through a gateway that asks for a key" in capsys.readouterr().out
