"""Chat completions have thoughts, answers and calls where they belong, for every size of delta."""

from pathlib import Path
from typing import Any

import pytest

from deckard_deploy.rehearsal import gemma4
from tests.e2e import patched

pytestmark = pytest.mark.vllm
OSLO, ROME = (f'get_weather{{"city": "{city}", "days": 3}}' for city in ("Oslo", "Rome"))


def said(*, reasoning: str = "", content: str = "", call: str = "") -> dict[str, str]:
    return {"reasoning": reasoning, "content": content, "call": call}


ONE = said(reasoning="Let me see, one.", content="Answer one.")
TWO = said(reasoning="Let me see, two.", content="Answer two.")
EXPECTED = {
    "thoughts": [ONE, TWO],
    "thoughts, tools offered": [ONE, TWO],
    "calls": [said(call=OSLO), said(call=ROME)],
    "thoughts and calls": [
        said(reasoning=ONE["reasoning"], call=OSLO),
        said(reasoning=TWO["reasoning"], call=ROME),
    ],
    "calls in open thoughts": [
        said(reasoning="I need it.", call=OSLO),
        said(reasoning="I need it.", call=ROME),
    ],
    "one thought": [ONE],
}
WHOLE_ONLY = {
    "cut off in the thought": [said(reasoning="I was")],
    "a call that nobody allowed": [said(reasoning=ONE["reasoning"], content="Sure.")],
    "tools that nobody allowed or called": [ONE],
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma4.write(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="module")
def answers(engine_python: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    overlay = patched.make_overlay(engine_python, tmp_path_factory.mktemp("patched"))
    found = patched.run(engine_python, "chat_outputs.py", [str(tokenizer)], overlay)
    assert found["module"].startswith(str(overlay))
    return found


@pytest.fixture(scope="module")
def stock(engine_python: Path, tokenizer: Path) -> dict[str, Any]:
    return patched.run(engine_python, "chat_outputs.py", [str(tokenizer)], None)


@pytest.mark.parametrize("case", EXPECTED)
def test_streamed_choices_are_right(answers, case):
    assert answers["streamed"][case] == [EXPECTED[case]]


@pytest.mark.parametrize("case", EXPECTED | WHOLE_ONLY)
def test_whole_answers_are_right(answers, case):
    assert answers["whole"][case] == (EXPECTED | WHOLE_ONLY)[case]


@pytest.mark.parametrize("case", EXPECTED)
def test_unpatched_release_streams_wrongly(stock, case):
    assert stock["streamed"][case] != [EXPECTED[case]]


@pytest.mark.parametrize("case", ["calls in open thoughts", "a call that nobody allowed"])
def test_unpatched_whole_answers_are_wrong(stock, case):
    assert stock["whole"][case] != (EXPECTED | WHOLE_ONLY)[case]


@pytest.mark.parametrize(
    "case", ["thoughts", "calls", "thoughts and calls", "one thought", "cut off in the thought"]
)
def test_patch_keeps_right_answers(stock, answers, case):
    assert stock["whole"][case] == answers["whole"][case]
