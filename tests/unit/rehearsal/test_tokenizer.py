from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deckard_deploy.rehearsal.script import MARKERS, SPECIAL, scripted_tokens
from deckard_deploy.rehearsal.tokenizer import (
    VOCABULARY_SIZE,
    Family,
    chat_template,
    tokenizer_config,
    tokenizer_json,
    vocabulary,
)

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "get_weather", "arguments": {"days": 3}}}],
}
RESULT = {"role": "tool", "content": "sunny"}
PICTURE = {"role": "user", "content": [{"type": "text", "text": "see "}, {"type": "image"}]}


def render(messages: list[dict[str, Any]], family: Family = "large", **context: Any) -> str:
    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = sandbox.from_string(chat_template(family))
    return template.render(messages=messages, bos_token="<bos>", **{"add_generation_prompt": True, **context})


@pytest.mark.parametrize(
    ("messages", "context", "mode"),
    [
        ([USER], {}, "plain"),
        ([USER], {"enable_thinking": False}, "plain"),
        ([USER], {"enable_thinking": True}, "thinking"),
        ([USER], {"tools": [TOOL]}, "tools"),
        ([USER], {"tools": [TOOL], "enable_thinking": True}, "thinking_tools"),
        ([USER, CALL, RESULT], {"tools": [TOOL]}, "plain"),
        ([USER, CALL, RESULT], {"tools": [TOOL], "enable_thinking": True}, "thinking"),
        ([USER, CALL, RESULT, USER], {"tools": [TOOL]}, "tools"),
        ([{"role": "user", "content": "Please COUNT."}], {}, "count"),
        ([{"role": "user", "content": "count"}, {"role": "assistant", "content": "one"}, USER], {}, "plain"),
        ([{"role": "user", "content": [{"type": "text", "text": "count"}]}], {}, "count"),
    ],
)
def test_prompt_ends_with_marker_of_its_mode(messages, context, mode):
    text = render(messages, **context)
    assert text.endswith(MARKERS[mode])
    assert [text.count(marker) for marker in MARKERS.values()].count(1) == 1


EMPTY_THOUGHT = "<|channel>thought\n<channel|>"


@pytest.mark.parametrize(
    ("family", "context", "end"),
    [
        ("large", {}, EMPTY_THOUGHT + MARKERS["plain"]),
        ("large", {"enable_thinking": True}, MARKERS["thinking"]),
        ("small", {}, MARKERS["plain"]),
        ("small", {"enable_thinking": True}, MARKERS["thinking"]),
    ],
)
def test_turn_of_model_starts_as_in_its_family(family: Family, context, end):
    assert render([USER], family, **context).endswith(f"<turn|>\n<|turn>model\n{end}")


@pytest.mark.parametrize("family", ["large", "small"])
def test_model_continues_its_turn_after_tool_result(family: Family):
    system = {"role": "system", "content": "be kind"}
    assert render([system, PICTURE, CALL, RESULT], family, tools=[TOOL], enable_thinking=True) == (
        "<bos><|turn>system\n<|think|>\nbe kind"
        '<|tool>{"name": "get_weather", "parameters": {}}<tool|><turn|>\n'
        "<|turn>user\nsee <|image|><turn|>\n"
        '<|turn>model\n<|tool_call>call:get_weather{"days": 3}<tool_call|>'
        f"<|tool_response>sunny<tool_response|>{MARKERS['thinking']}"
    )


def test_template_writes_conversation_as_turns():
    assert render([USER, CALL, RESULT, {"role": "assistant", "content": "ok"}, USER], tools=[TOOL]) == (
        '<bos><|turn>system\n<|tool>{"name": "get_weather", "parameters": {}}<tool|><turn|>\n'
        "<|turn>user\nhi<turn|>\n"
        '<|turn>model\n<|tool_call>call:get_weather{"days": 3}<tool_call|>'
        "<|tool_response>sunny<tool_response|>ok<turn|>\n"
        f"<|turn>user\nhi<turn|>\n<|turn>model\n{EMPTY_THOUGHT}{MARKERS['tools']}"
    )
    assert render([USER], add_generation_prompt=False) == "<bos><|turn>user\nhi<turn|>\n"


def test_token_ids_are_unique_and_in_range():
    ids = vocabulary()
    assert sorted(ids.values()) == list(range(len(ids)))
    assert len(ids) <= VOCABULARY_SIZE
    assert set(scripted_tokens()) | set(SPECIAL) <= ids.keys()


def test_tokenizer_json_spells_words_in_byte_letters():
    content = tokenizer_json()
    model, added = content["model"], content["added_tokens"]
    assert isinstance(model, dict)
    assert isinstance(added, list)
    assert model["vocab"]["Ġis"] == vocabulary()[" is"]
    assert model["vocab"]["thoughtĊ"] == vocabulary()["thought\n"]
    assert {token["content"]: token["special"] for token in added} == {
        **dict.fromkeys(SPECIAL, True),
        **dict.fromkeys(MARKERS.values(), False),
    }


def test_tokenizer_config_names_existing_tokens():
    named = {value for key, value in tokenizer_config(4096).items() if key.endswith("_token")}
    assert named <= vocabulary().keys()
    assert len(named) == 10
