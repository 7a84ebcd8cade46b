#!/usr/bin/env python3
"""Give command lines of `vllm serve` to the parser of the vLLM release whose Python runs this.

VENV/bin/python scripts/parse_command_lines.py < LINES.json

LINES.json is a list of lists of arguments. The last line of the output is a list with one object for each: what the
parser understood, or {"error": ...}.
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import vllm  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]


def cli_args() -> ModuleType:
    """Return vLLM's module of the arguments, which has moved twice: 0.33.0, 0.32.0, 0.19.1."""
    for package in ("common", "launchers", "openai"):
        if (Path(vllm.__file__).parent / "entrypoints" / package / "cli_args.py").is_file():
            return importlib.import_module(f"vllm.entrypoints.{package}.cli_args")
    sys.exit("error: make_arg_parser of this vLLM was not found: where is entrypoints/*/cli_args.py?")


def answer(module: ModuleType, argv: list[str]) -> dict[str, Any]:
    """Return what the parser understood."""
    parser = module.make_arg_parser(FlexibleArgumentParser(exit_on_error=False))
    try:
        arguments = parser.parse_args(argv)
        module.validate_parsed_serve_args(arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the release raises is its answer
        return {"error": str(error)}
    return {
        "model": arguments.model_tag,
        "names": arguments.served_model_name,
        "utilization": arguments.gpu_memory_utilization,
        "method": (arguments.speculative_config or {}).get("method"),
    }


if __name__ == "__main__":
    found = cli_args()
    print(json.dumps([answer(found, argv) for argv in json.load(sys.stdin)]))
