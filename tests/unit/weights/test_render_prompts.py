import json
import subprocess
import sys
from pathlib import Path

from deckard_deploy.rehearsal.tokenizer import chat_template
from deckard_deploy.weights import render_prompts


def test_prompts_are_printed_as_json(tmp_path: Path):
    template = tmp_path / "chat_template.jinja"
    template.write_text(chat_template("large"))
    argv = [sys.executable, "-I", render_prompts.__file__, str(template)]
    prompts = json.loads(subprocess.run(argv, capture_output=True, check=True, text=True).stdout)
    assert prompts.keys() == render_prompts.CASES.keys()
    assert "<|channel>thought\n<channel|>" in prompts["off"]
    assert "<|think|>" in prompts["on"]
    assert "<|tool_response>sunny<tool_response|>" in prompts["tool"]
