"""Render the chat template in the file argv[1], and print the prompts as JSON.

A program of its own, which imports nothing of this package: a template is code of a stranger, and the sandbox of Jinja
has no limit of time or memory. An error of the template is printed as {"error": ...}.
"""

import json
import resource
import sys
from datetime import datetime
from pathlib import Path

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS, MEMORY_BYTES = 2, 1 << 29
CALL = {"id": "1", "type": "function", "function": {"name": "get", "arguments": {"days": 3}}}
TOOL = {"function": {"name": "get", "description": "d", "parameters": {"type": "object", "properties": {}}}}
ASKED = [{"role": "user", "content": "hi"}]
ANSWERED_BY_TOOL = [
    *ASKED,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "name": "get", "content": "sunny"},
]
CASES: dict[str, dict[str, object]] = {
    "off": {"messages": ASKED},
    "on": {"messages": ASKED, "enable_thinking": True},
    "tool": {"messages": ANSWERED_BY_TOOL, "tools": [TOOL]},
}


class TemplateRefusalError(jinja2.TemplateError):
    """The template called `raise_exception`."""


def refuse(message: str) -> None:
    """Raise what a template raises by `raise_exception`."""
    raise TemplateRefusalError(str(message))


def main() -> None:
    """Print the prompts as transformers renders them (5.19 utils/chat_template_utils.py)."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    sandbox.globals["raise_exception"] = refuse
    sandbox.globals["strftime_now"] = lambda form: datetime(2026, 1, 1).strftime(form)  # noqa: DTZ001
    try:
        template = sandbox.from_string(Path(sys.argv[1]).read_text(encoding="utf-8"))
        prompts = {
            name: template.render({"bos_token": "<bos>", "add_generation_prompt": True, **context})
            for name, context in CASES.items()
        }
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, OverflowError, MemoryError) as error:
        prompts = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(prompts))


if __name__ == "__main__":
    main()
