import json
import time
from pathlib import Path

import pytest

from deckard_deploy.rehearsal.tokenizer import Family
from deckard_deploy.rehearsal.tokenizer import chat_template as tiny_template
from deckard_deploy.weights.chat_template import chat_template, check_template

ENDED = "the prompt ends the thought, which every engine sees"
NOT_ENDED = "the prompt ends no thought: vLLM 0.19.1 starts a grammar with our patch `reasoning`, 0.32.0 does"


@pytest.mark.parametrize(("family", "off"), [("large", ENDED), ("small", NOT_ENDED)])
def test_families_differ_where_thinking_is_off(family: Family, off: str):
    found = check_template(tiny_template(family))
    assert found.shown == (f"thinking off: {off}", f"after a tool result: {NOT_ENDED}")
    assert found.faults == ()


def test_thought_that_a_prompt_opens_is_reported():
    found = check_template("<bos><|think|>{{ messages[-1].content }}<turn|><|turn>model\n<|channel>thought\n")
    assert "leaves a thought open" in found.shown[0]


def test_prompt_that_hides_its_mode_is_reported():
    found = check_template("<|turn>user\n{{ messages[-1].content }}<turn|><|turn>model\n")
    assert [fault.partition(":")[0] for fault in found.faults] == [
        "its prompts do not start with <bos>",
        "with enable_thinking it writes no <|think|> in the first turn",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no tools') }}", "TemplateRefusalError: no tools"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ messages.__class__.__base__.__subclasses__() }}", "SecurityError"),
        ("{{ 'x' * 10**10 }}", "MemoryError"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "exit code"),
    ],
    ids=["refusal", "syntax", "escape", "memory", "time"],
)
def test_template_of_a_stranger_is_contained(template: str, reason: str):
    begin = time.monotonic()
    (line,) = check_template(template).shown
    assert "not rendered" in line
    assert reason in line
    assert time.monotonic() - begin < 60


def test_template_is_read_from_each_of_its_places(tmp_path: Path):
    assert chat_template(tmp_path) is None
    assert "no chat template" in check_template(None).shown[0]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "a"}))
    assert chat_template(tmp_path) == "a"
    (tmp_path / "chat_template.jinja").write_text("b")
    assert chat_template(tmp_path) == "b"
