"""`profiles`, `models` and `engines`."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from tests.support.fake_machine import add_gpu, machine
from tests.support.json_output import checked
from tests.support.rule_cases import FACTS

__all__ = ["machine"]


@pytest.mark.parametrize(
    "name", ["spark-healthy", "h100-no-docker", "spark-orphan-engine", "laptop-no-docker"]
)
def test_profiles_here_fits_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = str(FACTS / f"{name}.json")
    assert run(["profiles", "here", "--facts", facts]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert run(["profiles", "here", "--facts", facts, "--json"]) == 0
    said = checked("profiles here", capsys.readouterr().out)
    words = " ".join(out.split())
    for each in said["profiles"]:
        for text in (each["why"], *each["changes"]):
            assert " ".join(text.split()) in words
    assert f"`up` and `plan` take {said['default']} when no profile is named." in out
    assert said["profiles"][0]["profile"] == said["default"]


def test_profiles_alone_evaluates_this_machine(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_gpu(machine, "NVIDIA B200", "10.0", 183_359)
    assert run(["profiles"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("b200          with changes  NVIDIA B200, compute capability 10.0\n")
    assert "docker is not installed" in out


def test_profiles_here_removes_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = [{"index": 0, "name": "a\x1b[2Jb", "compute_capability": "12.1"}]
    (tmp_path / "f.json").write_text(json.dumps({"architecture": "aarch64", "gpus": gpus}))
    run(["profiles", "here", "--facts", str(tmp_path / "f.json")])
    assert all(letter.isprintable() or letter == "\n" for letter in capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["profiles", "models", "engines"])
def test_list_as_json_has_descriptions(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([kind, "list", "--json"]) == 0
    entries = checked(f"{kind} list", capsys.readouterr().out)
    assert entries
    assert all(entry["name"] and entry["description"] for entry in entries)


@pytest.mark.parametrize("kind", ["profiles", "models", "engines"])
def test_group_alone_prints_json(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([kind, "--json"]) == 0
    assert checked(kind, capsys.readouterr().out)
    assert run([kind, "--json", "list"]) == 2
    assert "--json stands behind `list`" in capsys.readouterr().err


def test_engines_print_their_abilities(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["engines"]) == 0
    assert "vllm-0.19.1: drafts with " in capsys.readouterr().out


def test_unknown_entry_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "deckard-32b"]) == 2
    assert "did you mean" in capsys.readouterr().err
