"""`profiles here`, and `plan` and `up` without --profile."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.rule_cases import FACTS

SMI = """#!/bin/sh
case "$1" in --query-gpu=*) echo "0, {name}, {capability}, 580.95.05, {memory}, 4, 33, 120, 192.00, P0, 0";; esac
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No deckard.yaml; of programs `uname`, sh and what a test adds. An x86_64, whatever this is."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(programs))
    write(programs / "uname", "#!/bin/sh\necho x86_64\n")
    return programs


def write(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


def gpu(programs: Path, name: str, capability: str, memory: int) -> None:
    write(programs / "nvidia-smi", SMI.format(name=name, capability=capability, memory=memory))


@pytest.mark.parametrize(
    "name", ["spark-healthy", "h100-no-docker", "spark-orphan-engine", "laptop-no-docker"]
)
def test_profiles_here_fits_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = str(FACTS / f"{name}.json")
    assert run(["profiles", "here", "--facts", facts]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert run(["profiles", "here", "--facts", facts, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    words = " ".join(out.split())
    for each in said["profiles"]:
        for text in (each["why"], *each["changes"]):
            assert " ".join(text.split()) in words
    assert f"`up` and `plan` take {said['default']} when no profile is named." in out
    assert said["profiles"][0]["profile"] == said["default"]


def test_profiles_alone_evaluates_this_machine(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu(machine, "NVIDIA B200", "10.0", 183_359)
    assert run(["profiles"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("b200          with changes  NVIDIA B200, compute capability 10.0\n")
    assert "docker is not installed" in out


def test_plan_without_profile_detects_one(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan"]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "profile  cpu: no NVIDIA GPU here, so a tiny model to rehearse with; another: --profile NAME\n"
    )
    assert "tiny-gemma4 on cpu" in captured.out
    gpu(machine, "NVIDIA B200", "10.0", 183_359)
    assert run(["plan", "--set", "max-num-seqs=2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "profile  b200: NVIDIA B200, compute capability 10.0; another: --profile NAME\n"
    assert "deckard-31b on b200" in captured.out


def test_named_profile_is_not_detected(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu(machine, "NVIDIA B200", "10.0", 183_359)
    (machine.parent / "deckard.yaml").write_text("profile: spark\n")
    assert run(["plan"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verb", ["up", "plan"])
def test_machine_without_profile_exits_3(
    verb: str, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu(machine, "NVIDIA GeForce RTX 4090", "8.9", 24_564)
    assert run([verb]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: no profile is made for NVIDIA GeForce RTX 4090, x86_64",
        "  try: deckard-deploy profiles, then: deckard-deploy up --profile cpu (a rehearsal)",
    ]
    assert not (machine.parent / "home").exists()


def test_render_detects_no_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", "command"]) == 2
    assert "no hardware profile was named" in capsys.readouterr().err


def test_profiles_here_removes_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = [{"index": 0, "name": "a\x1b[2Jb", "compute_capability": "12.1"}]
    (tmp_path / "f.json").write_text(json.dumps({"architecture": "aarch64", "gpus": gpus}))
    run(["profiles", "here", "--facts", "f.json"])
    assert all(letter.isprintable() or letter == "\n" for letter in capsys.readouterr().out)
