#!/usr/bin/env python3
"""Write the options of one vLLM release to deckard_deploy/catalog/schemas/vllm-<version>.json.

Run it with the Python of an environment that has that release:

    VENV/bin/python scripts/extract_option_schema.py            write the file
    VENV/bin/python scripts/extract_option_schema.py --check    exit 1 when the committed file is stale

Options come from the parser that `vllm serve` itself uses (make_arg_parser of vllm/entrypoints/openai/cli_args.py; of
launchers/cli_args.py in 0.32.0, of common/cli_args.py in 0.33.0), variables from `environment_variables` in
vllm/envs.py. The format is deckard_deploy.catalog.option_schema's.
"""

import argparse
import dataclasses
import enum
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import vllm  # type: ignore[import-not-found]
from parse_command_lines import cli_args  # type: ignore[import-not-found]  # beside this file
from pydantic.fields import FieldInfo
from vllm import envs
from vllm.engine import arg_utils  # type: ignore[import-not-found]
from vllm.engine.arg_utils import get_kwargs  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

make_arg_parser = cli_args().make_arg_parser

try:
    from vllm.config.cache import KV_CACHE_DTYPES  # type: ignore[import-not-found]
except ImportError:  # before 0.33.0
    KV_CACHE_DTYPES = []

SCHEMAS = Path(__file__).resolve().parent.parent / "deckard_deploy" / "catalog" / "schemas"

BOUNDS = ("gt", "ge", "lt", "le")
# The names of the functions that vllm/engine/arg_utils.py gives argparse as `type`.
KINDS = {
    "int": "integer",
    "human_readable_int": "integer",
    "human_readable_int_or_auto": "integer",
    "float": "number",
    "loads": "json",
    "parse_dataclass": "json",
    "str": "text",
    "parse_reasoning_parser": "text",
    "<lambda>": "text",  # --moe-backend: lower-cases one of its choices
}


def schema() -> dict[str, Any]:
    """Return the schema as plain data."""
    configurations: list[type] = []

    def recording(configuration: type) -> dict[str, dict[str, Any]]:
        configurations.append(configuration)
        return dict(get_kwargs(configuration))

    arg_utils.get_kwargs = recording
    parser = make_arg_parser(FlexibleArgumentParser())
    limits = bounds(configurations)
    options = {
        action.option_strings[0].removeprefix("--"): option(action, limits.get(action.dest, {}))
        for action in parser._actions  # argparse has no public list
        if action.option_strings and not isinstance(action, argparse._HelpAction)
    }
    return {
        "vllm_version": vllm.__version__.partition("+")[0],
        "options": options,
        "environment": sorted(envs.environment_variables),
    }


def bounds(configurations: list[type]) -> dict[str, dict[str, float]]:
    """Return the bounds of the fields (pydantic.Field(ge=…)) by name: `{"max_num_seqs": {"ge": 1}}`."""
    return {
        field.name: {
            name: getattr(limit, name)
            for name in BOUNDS
            for limit in field.default.metadata
            if hasattr(limit, name)
        }
        for configuration in configurations
        for field in dataclasses.fields(configuration)
        if isinstance(field.default, FieldInfo)
    }


def option(action: argparse.Action, limits: dict[str, float]) -> dict[str, Any]:
    """Return one option, without values that equal the format's default."""
    kind, converter = kind_of(action), converter_name(action.type)
    choices = ["auto"] if converter == "human_readable_int_or_auto" else []
    # "None" is how an optional value says that it is absent; here the option itself is then absent.
    choices += [choice for choice in action.choices or [] if choice not in ("None", None)]
    if action.dest == "kv_cache_dtype" and not choices:
        # Since 0.33.0 the parser takes any text, and CacheConfig refuses what is not listed there.
        choices = list(KV_CACHE_DTYPES)
    entry = {"kind": kind, "choices": choices, "default": plain(action.default), "bounds": limits}
    if kind == "list":
        entry["items"] = KINDS[converter]
    return {key: value for key, value in entry.items() if value not in (None, [], {})}


def kind_of(action: argparse.Action) -> str:
    """Return the kind of an option (option_schema.Option). Raises KeyError for an unknown converter."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return "toggle"
    if isinstance(action, argparse._StoreTrueAction):
        return "flag"
    if action.nargs == "+":
        return "list"
    name = converter_name(action.type)
    if name == "union_dict_and_str":  # JSON, or text to the letter where text is the default
        return "text" if isinstance(action.default, str) else "json"
    return KINDS[name]


def converter_name(converter: object) -> str:
    """Return the name of the converter inside vLLM's optional_type and parse_type closures."""
    if converter is None:
        return "str"
    while inspect.isfunction(converter) and converter.__name__ in ("_optional_type", "_parse_type"):
        converter = inspect.getclosurevars(converter).nonlocals["return_type"]
    return str(getattr(converter, "__name__", converter))


def plain(default: object) -> object:
    """Return the default if it is plain JSON; None for configuration objects and enum members."""
    if isinstance(default, set):
        return sorted(default)
    if isinstance(default, enum.Enum) or default is argparse.SUPPRESS:
        return None
    if default is None or isinstance(default, bool | int | float | str | list) or type(default) is dict:
        return default
    return None


def main() -> int:
    """Run the command line; returns the exit code."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when the file is stale"
    )
    check = arguments.parse_args().check
    found = schema()
    path = SCHEMAS / f"vllm-{found['vllm_version']}.json"
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    if check:
        fresh = path.exists() and path.read_text(encoding="utf-8") == text
        print(f"{path.name}: {'as extracted' if fresh else 'STALE: run this script without --check'}")
        return 0 if fresh else 1
    SCHEMAS.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {len(found['options'])} options, {len(found['environment'])} variables")
    return 0


if __name__ == "__main__":
    sys.exit(main())
