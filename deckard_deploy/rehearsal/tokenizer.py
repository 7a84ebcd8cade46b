"""The tokenizer and the chat template of the tiny Gemma 4.

A byte-level BPE without merges, whose tokens are single bytes, Gemma's special tokens and the script's words.
The text of a user becomes one token per byte, and only the model can generate the tokens of the words. The
markers of the modes are added tokens, so that the template can write them.
"""

from typing import Literal

from deckard_deploy.rehearsal.script import (
    BOS,
    COUNT_WORD,
    EOS,
    LOST,
    MARKERS,
    SPECIAL,
    scripted_tokens,
)

VOCABULARY_SIZE = 512

_MEDIA_TOKENS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}

Family = Literal["large", "small"]

# The end of the prompt is the real Gemma 4's, of which a reasoning parser decides whether the answer has
# begun. `large` (12B, 26B-A4B, 31B): without thinking the turn of the model starts with an empty thought
# (vllm-project/vllm 03a5e85 examples/tool_chat_template_gemma4.jinja; ggml-org/llama.cpp 3240d8f
# models/templates/google-gemma-4-31B-it-interleaved.jinja). `small` (E2B, E4B): it does not ("the E-series HF
# templates write no marker with thinking off, and no template does after a tool response", vLLM 0.32.0
# parser/gemma4.py:301). Both: thinking writes <|think|> at the start of the first system turn, and after a
# tool result the turn of the model continues without any marker. Only the marker of the mode is ours.
#
# If the last message is a tool result, the answer is a text, so that an agent's loop over tool calls ends.
# vLLM passes images as parts only to a template that loops over message['content'] itself, not in a macro
# (vLLM 0.19.1 renderers/hf.py, _detect_content_format).
_CHAT_TEMPLATE = (
    """\
{%- set thinking = enable_thinking is defined and enable_thinking -%}
{%- set call_tools = tools and messages[-1]['role'] != 'tool' -%}
{%- set last = namespace(text='', role='') -%}
{{- bos_token -}}
{%- if thinking or tools or messages[0]['role'] == 'system' -%}
{{- '<|turn>system\\n' -}}
{%- if thinking -%}{{- '<|think|>\\n' -}}{%- endif -%}
{%- endif -%}
{%- for message in messages -%}
{%- set last.text = '' -%}
{%- if message['content'] is string -%}
{%- set last.text = message['content'] -%}
{%- elif message['content'] -%}
{%- for part in message['content'] -%}
{%- set piece = part['text'] if part['type'] == 'text' else '<|' ~ part['type'] ~ '|>' -%}
{%- set last.text = last.text ~ piece -%}
{%- endfor -%}
{%- endif -%}
{%- if loop.first and message['role'] == 'system' -%}
{{- last.text -}}
{%- endif -%}
{%- if loop.first and (thinking or tools or message['role'] == 'system') -%}
{%- for tool in tools or [] -%}{{- '<|tool>' ~ tool['function'] | tojson ~ '<tool|>' -}}{%- endfor -%}
{{- '<turn|>\\n' -}}
{%- endif -%}
{%- if message['role'] == 'tool' -%}
{{- '<|tool_response>' ~ last.text ~ '<tool_response|>' -}}
{%- elif not (loop.first and message['role'] == 'system') -%}
{%- if last.role != 'tool' -%}
{{- '<|turn>' ~ ('model' if message['role'] == 'assistant' else message['role']) ~ '\\n' -}}
{%- endif -%}
{{- last.text -}}
{%- for call in message['tool_calls'] or [] -%}
{{- '<|tool_call>call:' ~ call['function']['name'] ~ call['function']['arguments'] | tojson ~ '<tool_call|>' -}}
{%- endfor -%}
{%- if not message['tool_calls'] -%}{{- '<turn|>\\n' -}}{%- endif -%}
{%- endif -%}
{%- set last.role = message['role'] -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{%- if last.role != 'tool' -%}
{{- '<|turn>model\\n' -}}
{%- if not thinking -%}{{- 'EMPTY_THOUGHT' -}}{%- endif -%}
{%- endif -%}
"""
    f"{{%- if thinking and call_tools -%}}{MARKERS['thinking_tools']}\n"
    f"{{%- elif call_tools -%}}{MARKERS['tools']}\n"
    f"{{%- elif thinking -%}}{MARKERS['thinking']}\n"
    f"{{%- elif '{COUNT_WORD}' in last.text | lower -%}}{MARKERS['count']}\n"
    f"{{%- else -%}}{MARKERS['plain']}\n"
    "{%- endif -%}\n"
    "{%- endif -%}\n"
)
_EMPTY_THOUGHT: dict[Family, str] = {"large": "<|channel>thought\\n<channel|>", "small": ""}


def chat_template(family: Family) -> str:
    """Return the chat template, whose prompt ends as that of a Gemma 4 of this family."""
    return _CHAT_TEMPLATE.replace("EMPTY_THOUGHT", _EMPTY_THOUGHT[family])


def _byte_letters() -> list[str]:
    """Return the letter of byte-level BPE for each byte 0…255 (GPT-2's table, as in `tokenizers`)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = iter(range(256, 512))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def vocabulary() -> dict[str, int]:
    """Return the id of each token by its text. The text of a single byte is its byte-level letter."""
    words = [token for token in [*scripted_tokens(), LOST] if token not in MARKERS.values()]
    ordinary = dict.fromkeys([*SPECIAL, *_byte_letters(), *words])
    tokens = [*ordinary, *MARKERS.values()]
    return {token: identifier for identifier, token in enumerate(tokens)}


def _added(token: str, identifier: int) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": identifier, "content": token, **flags, "special": token in SPECIAL}


def _spelled_vocabulary() -> dict[str, int]:
    """Return the vocabulary without the markers, with the words spelled in byte-level letters."""
    letters = _byte_letters()
    spelled = {}
    for token, number in vocabulary().items():
        if token in MARKERS.values():
            continue
        if token in SPECIAL or token in letters:
            spelled[token] = number
        else:
            spelled["".join(letters[byte] for byte in token.encode())] = number
    return spelled


def _bos_first(identifier: int) -> dict[str, object]:
    """Return the post-processor that puts <bos> before a text, as that of the real Gemma 4 does.

    A rendered chat template has its own <bos> and is tokenized without.
    """
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [bos, first],
        "pair": [bos, first, bos, second],
        "special_tokens": {BOS: {"id": BOS, "ids": [identifier], "tokens": [BOS]}},
    }


def tokenizer_json() -> dict[str, object]:
    """Return `tokenizer.json` in the format of the `tokenizers` library, version 1.0."""
    ids = vocabulary()
    added = [*SPECIAL, *MARKERS.values()]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(token, ids[token]) for token in added],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": _bos_first(ids[BOS]),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": _spelled_vocabulary(),
            "merges": [],
        },
    }


def tokenizer_config(context_tokens: int) -> dict[str, object]:
    """Return `tokenizer_config.json`; Gemma4Processor refuses a tokenizer without the media tokens."""
    return {
        "tokenizer_class": "TokenizersBackend",
        "processor_class": "Gemma4Processor",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "extra_special_tokens": ["<|video|>"],
        "model_max_length": context_tokens,
        "padding_side": "left",
        **_MEDIA_TOKENS,
    }
