"""Feed written engine outputs to vLLM's real chat completion code; print what clients would get, as JSON.

No engine runs: the outputs are token by token what a Gemma 4 writes, so that interleaved choices, deltas of several
tokens and odd endings come out the same on every run. argv: the folder of a tokenizer that has Gemma 4's tokens.
Run in its own process, so that PYTHONPATH decides which serving.py is used.
"""

# vLLM and torch are in the engine's environment, not beside the tools.
# mypy: ignore-errors

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion import serving
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.engine.protocol import RequestResponseMetadata
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser import ParserManager

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
THOUGHT = "<|channel>thought\nLet me see, {}.<channel|>"
CALL = '<|tool_call>call:get_weather{{city:<|"|>{}<|"|>,days:3}}<tool_call|>'
TOKENIZER = AutoTokenizer.from_pretrained(sys.argv[1])


def chat() -> Any:
    """The real class, without what only an engine needs."""
    chat: Any = object.__new__(serving.OpenAIServingChat)
    chat.use_harmony = chat.enable_log_outputs = chat.enable_log_deltas = False
    chat.enable_force_include_usage = chat.enable_prompt_tokens_details = chat.return_tokens_as_token_ids = (
        False
    )
    chat.enable_auto_tools, chat.request_logger = True, None
    chat.tool_call_id_type, chat.response_role, chat.default_chat_template_kwargs = "random", "assistant", {}
    chat.reasoning_parser_cls = ParserManager.get_reasoning_parser(reasoning_parser_name="gemma4")
    chat.tool_parser = ParserManager.get_tool_parser(
        tool_parser_name="gemma4", enable_auto_tools=True, model_name="tiny"
    )
    return chat


def output(index: int, ids: list[int], *, last: bool) -> CompletionOutput:
    text = "".join(TOKENIZER.decode([token], skip_special_tokens=False) for token in ids)
    return CompletionOutput(index, text, ids, None, None, finish_reason="stop" if last else None)


async def deltas(texts: list[str], size: int) -> AsyncIterator[RequestOutput]:
    """The choices interleaved, `size` tokens of each at a time."""
    ids = [TOKENIZER.encode(text, add_special_tokens=False) for text in texts]
    for begin in range(0, max(map(len, ids)), size):
        parts = [
            output(index, tokens[begin : begin + size], last=begin + size >= len(tokens))
            for index, tokens in enumerate(ids)
            if begin < len(tokens)
        ]
        yield RequestOutput("r", None, [2], None, parts, finished=False)


async def whole(texts: list[str]) -> AsyncIterator[RequestOutput]:
    ids = [TOKENIZER.encode(text, add_special_tokens=False) for text in texts]
    parts = [output(index, tokens, last=True) for index, tokens in enumerate(ids)]
    yield RequestOutput("r", None, [2], None, parts, finished=True)


def request(texts: list[str], *, stream: bool, choice: str | None) -> ChatCompletionRequest:
    tools = {"tools": TOOLS, "tool_choice": choice} if choice else {}
    message = {"role": "user", "content": "hi"}
    return ChatCompletionRequest(model="tiny", messages=[message], n=len(texts), stream=stream, **tools)


def arguments(texts: list[str], *, stream: bool, choice: str | None) -> tuple[Any, ...]:
    asked = request(texts, stream=stream, choice=choice)
    parser = chat().reasoning_parser_cls(TOKENIZER, chat_template_kwargs={})
    return asked, "r", "tiny", [], TOKENIZER, RequestResponseMetadata(request_id="r"), parser


async def streamed(texts: list[str], size: int, choice: str | None) -> list[dict[str, str]]:
    asked, *rest = arguments(texts, stream=True, choice=choice)
    got = [{"reasoning": "", "content": "", "call": ""} for _ in texts]
    async for line in chat().chat_completion_stream_generator(asked, deltas(texts, size), *rest):
        data = line.removeprefix("data: ").strip()
        if data == "[DONE]":
            continue
        for part in json.loads(data).get("choices", [{"index": 0, "delta": {"content": data}}]):
            into, delta = got[part["index"]], part["delta"]
            into["reasoning"] += delta.get("reasoning") or ""
            into["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                into["call"] += (call["function"].get("name") or "") + (
                    call["function"].get("arguments") or ""
                )
    return got


async def complete(texts: list[str], choice: str | None) -> list[dict[str, str]]:
    asked, *rest = arguments(texts, stream=False, choice=choice)
    answer = await chat().chat_completion_full_generator(asked, whole(texts), *rest)
    return [
        {
            "reasoning": one.message.reasoning or "",
            "content": one.message.content or "",
            "call": "".join(
                call.function.name + call.function.arguments for call in one.message.tool_calls or []
            ),
        }
        for one in answer.choices
    ]


async def every_size(texts: list[str], choice: str | None) -> list[Any]:
    """The different answers that streaming gives for deltas of 1 to 44 tokens, and for a single one."""
    answers = [await streamed(texts, size, choice) for size in (*range(1, 45), 1000)]
    return [answer for index, answer in enumerate(answers) if answer not in answers[:index]]


async def main() -> dict[str, Any]:
    thoughts = [THOUGHT.format("one") + "Answer one.", THOUGHT.format("two") + "Answer two."]
    calls = [CALL.format("Oslo"), CALL.format("Rome")]
    both = [THOUGHT.format("one") + calls[0], THOUGHT.format("two") + calls[1]]
    open_thoughts = ["<|channel>thought\nI need it." + call for call in calls]
    return {
        "module": serving.__file__,
        "streamed": {
            "thoughts": await every_size(thoughts, None),
            "thoughts, tools offered": await every_size(thoughts, "auto"),
            "calls": await every_size(calls, "auto"),
            "thoughts and calls": await every_size(both, "auto"),
            "calls in open thoughts": await every_size(open_thoughts, "auto"),
            "one thought": await every_size(thoughts[:1], None),
        },
        "whole": {
            "thoughts": await complete(thoughts, None),
            "thoughts, tools offered": await complete(thoughts, "auto"),
            "calls": await complete(calls, "auto"),
            "thoughts and calls": await complete(both, "auto"),
            "calls in open thoughts": await complete(open_thoughts, "auto"),
            "one thought": await complete(thoughts[:1], None),
            "cut off in the thought": await complete(["<|channel>thought\nI was"], "auto"),
            "a call that nobody allowed": await complete(
                [THOUGHT.format("one") + "Sure. " + calls[0]], "none"
            ),
            "tools that nobody allowed or called": await complete(thoughts[:1], "none"),
        },
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main())))
