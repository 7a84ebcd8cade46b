"""An engine's Python with a fake `vllm bench serve` in it."""

import sys
import textwrap
from pathlib import Path

from deckard_deploy.measuring.engine_bench import Endpoint


def fake_endpoint(tmp_path: Path, bench: str) -> Endpoint:
    """An endpoint with a fake vLLM, whose `bench serve` runs the given code."""
    package = tmp_path / "vllm"
    (package / "benchmarks").mkdir(parents=True)
    (package / "entrypoints" / "cli").mkdir(parents=True)
    for module in ("benchmarks/serve.py", "entrypoints/cli/serve.py"):
        (package / module).touch()
    code = "import json, os, sys, time\ndef main():\n" + textwrap.indent(textwrap.dedent(bench), "    ")
    (package / "entrypoints" / "cli" / "main.py").write_text(code)
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    python = (sys.executable,)
    return Endpoint(
        server="http://s", served_name="m", model="/m", python=python, environment=environment, key="k"
    )
