"""The chat template of a checkpoint: what the engine's reasoning parser sees at the end of its prompts."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from deckard_deploy.errors import EnvironmentUnfitError, IntegrityError
from deckard_deploy.system.commands import run
from deckard_deploy.system.text import escaped
from deckard_deploy.weights.strict_json import LARGEST_CONFIG, read_object

TIMEOUT_S = 60.0  # of a busy machine; the program itself stops after two seconds of processor time
MAX_BYTES = 1 << 20  # of a template; Gemma 4's has 17 kB
BOS, THINK, TURN_END = "<bos>", "<|think|>", "<turn|>"
# What Gemma4ReasoningParser.is_reasoning_end looks for, from the end on (vLLM 0.19.1
# reasoning/gemma4_reasoning_parser.py:76; 0.32.0 parser/engine/parser_engine.py, is_reasoning_end).
_MARKS = re.compile(r"<\|channel>|<channel\|>|<\|tool_call>|<\|turn>|<\|tool_response>")
_ENDED = ("<channel|>", "<|tool_call>")


class TemplateCheck(NamedTuple):
    """The result of `check_template`.

    shown: facts, one line each. faults: reasons why a grammar is not applied as it was asked for.
    """

    shown: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def chat_template(folder: Path) -> str | None:
    """Return the chat template, from the places where transformers looks for it; None without one.

    Of several in a list it is the one named default. Raises IntegrityError for a file of more than 64 MiB.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        if path.stat().st_size > LARGEST_CONFIG:
            raise IntegrityError(f"{path}: larger than {LARGEST_CONFIG >> 20} MiB; that is no template")
        return path.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        template = _default_template(read_object(path).get("chat_template"))
        if template is not None:
            return template
    return None


def _default_template(found: Any) -> str | None:  # noqa: ANN401  the file may hold any type
    if isinstance(found, list):
        for each in found:
            if isinstance(each, dict) and each.get("name") == "default":
                found = each.get("template")
    return found if isinstance(found, str) else None


def check_template(template: str | None) -> TemplateCheck:
    """Render a template in a process of its own, and check where a grammar would start."""
    if template is None:
        return TemplateCheck(("no chat template: vLLM answers /v1/chat/completions with 400",))
    if len(template) > MAX_BYTES:
        return TemplateCheck((f"the chat template has {len(template)} characters: not rendered",))
    prompts = _rendered(template)
    if "error" in prompts:
        return TemplateCheck((f"the chat template was not rendered: {escaped(prompts['error'][:200])}",))
    shown = [
        f"thinking off: {_grammar_start(prompts['off'])}",
        f"after a tool result: {_grammar_start(prompts['tool'])}",
    ]
    return TemplateCheck(tuple(shown), tuple(_faults(prompts)))


def _rendered(template: str) -> dict[str, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8") as file:
        file.write(template)
        file.flush()
        program = Path(__file__).with_name("render_prompts.py")
        try:
            done = run(
                (sys.executable, "-I", str(program), file.name),
                environment={"PATH": os.defpath},
                say=lambda _line: None,
                timeout_s=TIMEOUT_S,
            )
        except EnvironmentUnfitError as error:
            return {"error": error.message}
    if done.returncode != 0:
        return {"error": f"stopped after too much time or memory (exit code {done.returncode})"}
    return dict(json.loads(done.stdout))


def _grammar_start(prompt: str) -> str:
    marks = _MARKS.findall(prompt)
    if marks and marks[-1] in _ENDED:
        return "the prompt ends the thought, which every engine sees"
    if marks and marks[-1] == "<|channel>":
        return "the prompt leaves a thought open: a grammar starts when the model ends it"
    return "the prompt ends no thought: vLLM 0.19.1 starts a grammar with our patch `reasoning`, 0.32.0 does"


def _faults(prompts: dict[str, str]) -> list[str]:
    faults = []
    if not prompts["off"].startswith(BOS):
        faults.append(f"its prompts do not start with {BOS}: vLLM 0.19.1 applies no grammar to them")
    if THINK not in prompts["on"].partition(TURN_END)[0]:
        faults.append(
            f"with enable_thinking it writes no {THINK} in the first turn: a grammar forbids the thought"
        )
    return faults
