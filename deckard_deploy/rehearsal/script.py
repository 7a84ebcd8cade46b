"""The script of the tiny Gemma 4: one chain of tokens per mode, selected by the chat template.

The chat template ends every prompt with the marker of a mode. From there greedy decoding follows that mode's
chain:

- `plain`: a short sentence
- `thinking`: a thought in the `<|channel>` … `<channel|>` block, then an answer
- `tools`: one call of `get_weather`
- `thinking_tools`: a thought, then the same call (tools and enable_thinking both set)
- `count`: endless numbers, for benchmarks and streaming (the last message contains the word `count`)

After `<turn|>`, where a request with `ignore_eos` continues, every mode counts. A prompt without a marker and
a network that computes a wrong result give LOST.
"""

import itertools

PLAIN_TEXT = "Hello, this is a rehearsal."
THOUGHT_TEXT = "First I read the question."
ANSWER_TEXT = "Here is my answer."
TOOL_THOUGHT_TEXT = "The forecast will tell."
TOOL_NAME = "get_weather"
TOOL_ARGUMENTS = {"days": 3}
COUNT_TEXT = "one two three four five six seven eight nine ten eleven twelve "
COUNT_WORD = "count"
# No JSON string may have a raw end of line, so a grammar rules this one out inside of strings too.
LOST = "lost\n"

BOS, EOS, TURN, TURN_END = "<bos>", "<eos>", "<|turn>", "<turn|>"
# vLLM 0.19.1 looks up <|turn>, <|channel>, <channel|>, <|tool_call>, <tool_call|> and <|tool_response>
# (reasoning/gemma4_reasoning_parser.py, tool_parsers/gemma4_tool_parser.py). transformers' Gemma4Processor
# looks up the media tokens.
SPECIAL = (
    "<pad>",
    EOS,
    BOS,
    "<unk>",
    TURN,
    TURN_END,
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|image>",
    "<image|>",
    "<|image|>",
    "<|audio>",
    "<audio|>",
    "<|audio|>",
    "<|video|>",
)
MODES = ("plain", "thinking", "tools", "thinking_tools", "count")
MARKERS = {mode: f"<|script:{mode}|>" for mode in MODES}

_THOUGHT_START = ("<|channel>", "thought\n")
_CALL = ("<|tool_call>", "call:", TOOL_NAME, "{days", ":3}", "<tool_call|>", TURN_END)


def _words(text: str) -> tuple[str, ...]:
    """Split a text into words; each but the first keeps its space in front."""
    first, *rest = text.split(" ")
    return first, *(f" {word}" for word in rest)


_COUNT = tuple(f"{word} " for word in COUNT_TEXT.split())
CHAINS: dict[str, tuple[str, ...]] = {
    "plain": (*_words(PLAIN_TEXT), TURN_END),
    "thinking": (*_THOUGHT_START, *_words(THOUGHT_TEXT), "<channel|>", *_words(ANSWER_TEXT), TURN_END),
    "tools": _CALL,
    "thinking_tools": (*_THOUGHT_START, *_words(TOOL_THOUGHT_TEXT), "<channel|>", *_CALL),
    "count": (),
}


def transitions() -> list[tuple[str, str, str]]:
    """Return (mode, token, next token) for every step of every chain, and of the count after it."""
    steps = []
    for mode in MODES:
        path = (MARKERS[mode], *CHAINS[mode], *_COUNT, _COUNT[0])
        for token, follower in itertools.pairwise(path):
            steps.append((mode, token, follower))
    return steps


def scripted_tokens() -> list[str]:
    """Return <bos>, which the full-attention layer looks for, and every token of a chain, in order."""
    tokens = [BOS, *MARKERS.values()]
    for _, _, follower in transitions():
        tokens.append(follower)
    return list(dict.fromkeys(tokens))
