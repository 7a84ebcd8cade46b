"""Natural mistakes: what the program answers, and whether the correction that it suggests works when typed."""

from typing import NamedTuple

import pytest

from deckard_deploy.cli.main import run

FILES = {
    "tab.yaml": "profile: spark\n\tx: 1\n",
    "no-colon.yaml": "profile spark\n",
    "unknown.yaml": "profil: spark\n",
    "twice.yaml": "profile: spark\nprofile: cpu\n",
    "empty.yaml": "",
    "32k.yaml": "profile: spark\nserve:\n  max-model-len: 32k\n",
    "variable.yaml": "profile: spark\nenv:\n  VLLM_LOGGING_LEVL: DEBUG\n",
    "misspelt.yaml": "profile: spark\nenvironment:\n  VLLM_LOGGING_LEVL: DEBUG\n",
    "address.yaml": "profile: cpu\npublish:\n  address: 0.0.0.0\n",
    "port.yaml": 'profile: cpu\npublish:\n  port: "eight thousand"\n',
}


class Mistake(NamedTuple):
    """A command line, a part of its answer, and the command line that its suggestion makes."""

    typed: str
    answer: str
    corrected: str = ""


MISTAKES = [
    Mistake("plan --profile sparc", "did you mean 'spark'?", "plan --profile spark"),
    Mistake("plan --profile Spark", "did you mean 'spark'?", "plan --profile spark"),
    Mistake("plan --profile gpu", "known: b200, b300, cpu", "profiles"),
    Mistake("statu", "did you mean 'status'?", "status --help"),  # codespell:ignore statu
    Mistake("stop", "did you mean 'down'?", "down --help"),
    Mistake("ps", "did you mean 'status'?", "status --help"),
    Mistake("list", "did you mean 'status'?", "status --help"),
    Mistake("help", "did you mean '--help'?", "--help"),
    Mistake("version", "did you mean '--version'?", "--version"),
    Mistake("plan spark", "did you mean --profile spark?", "plan --profile spark"),
    Mistake("plan --profil spark", "did you mean '--profile'?", "plan --profile spark"),
    Mistake(
        "plan -p cpu --set max-num-sequences=2",
        "did you mean 'max-num-seqs'?",
        "plan -p cpu --set max-num-seqs=2",
    ),
    Mistake("plan -p cpu --set max-num-seqs=two", "a whole number was expected"),
    Mistake("plan -p cpu --set x", "KEY=VALUE was expected"),
    Mistake("plan -p cpu --set temperature=.5", "vLLM 0.19.1 has no option --temperature"),
    Mistake("plan -c 32k.yaml", "32k.yaml:3: serve.max-model-len", "plan -p spark --set max-model-len=32768"),
    Mistake(
        "plan -p spark --set max-model-len=9999999",
        "try: --set max-model-len=262144",
        "plan -p spark --set max-model-len=262144 --set max-num-seqs=1",
    ),
    Mistake("plan -p spark --set gpu-memory-utilization=85", "a value > 0 and <= 1 was expected"),
    Mistake("plan -p spark --set tensor-parallel-size=3", "does not divide deckard-31b's 32 attention heads"),
    Mistake("plan -p spark --set trust-remote-code=true", "no repository's code need run"),
    Mistake("plan -p spark --set api-key=x", "readable by everyone on the host"),
    Mistake("plan -c tab.yaml", "tab.yaml:2: not YAML: found a tab"),
    Mistake("plan -c no-colon.yaml", "no-colon.yaml:1: a mapping (key: value) was expected"),
    Mistake("plan -c unknown.yaml", "unknown.yaml:1: profil: unknown key; did you mean 'profile'?"),
    Mistake("plan -c twice.yaml", "twice.yaml:2: profile: key given twice (first on line 1)"),
    Mistake("plan -c variable.yaml", "variable.yaml:2: env: unknown key; did you mean 'environment'?"),
    Mistake("plan -c misspelt.yaml", "did you mean 'VLLM_LOGGING_LEVEL'?"),
    Mistake("plan -c address.yaml", "try: --expose 0.0.0.0"),
    Mistake("plan -c port.yaml", "port.yaml:3: publish.port"),
    Mistake("plan -c nowhere.yaml", "nowhere.yaml"),
    Mistake("inspect /nope", "/nope: no such folder"),
    Mistake("inspect tiny-gemm4", "did you mean 'tiny-gemma4'?", "models show tiny-gemma4"),
    Mistake("plan --model /path", "/path: no such folder"),
    Mistake("plan -p cpu --engine vllm-0.20", "known: aeon-awq, vllm-0.19.1", "engines"),
    Mistake(
        "plan -p cpu --drafter on", "tiny-gemma4 has: tiny-assistant", "plan -p cpu --drafter tiny-assistant"
    ),
    Mistake("models show deckard", "did you mean 'deckard-31b'", "models show deckard-31b"),
    Mistake("plan --name Two", "--name Two: 'Two': a name of a-z", "plan --name two"),
    Mistake("patches check --set vllm-0.32", "known: vllm-0.19.1", "patches list"),
    Mistake("status --name Two", "no deployment named 'Two'; try: lower-case letters"),
    Mistake("chat hi", "no deployments yet", "up --help"),
    Mistake("top --once", "no deployments yet", "up --help"),
    Mistake("down", "no deployments yet", "up --help"),
    Mistake("bench report last", "no record 'last'", "bench list"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.typed for mistake in MISTAKES])
def test_mistake_is_answered_in_one_line_and_its_correction_works(
    mistake: Mistake, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "state"))
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    assert run(mistake.typed.split()) == 2
    captured = capsys.readouterr()
    answers = [line for line in captured.err.splitlines() if not line.startswith("profile  ")]
    assert len(answers) == 1
    assert mistake.answer in answers[0]
    assert captured.out == ""
    if mistake.corrected:
        assert run(mistake.corrected.split()) == 0


def test_empty_file_is_a_file_with_defaults(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deckard.yaml").write_text("")
    assert run(["plan"]) == 0
    assert "another: --profile NAME" in capsys.readouterr().err
