"""vLLM options as argv tokens: one token per value, never a shell string."""

import json

from pydantic import JsonValue

from deckard_deploy.catalog.option_schema import Option, OptionSchema
from deckard_deploy.catalog.specs import Serve

Line = tuple[str, ...]


def serve_arguments(serve: Serve, schema: OptionSchema) -> tuple[str, ...]:
    """Turn `{"max-num-seqs": 4}` into `("--max-num-seqs", "4")`, in the order of `serve`.

    Values were checked against `schema` when they were resolved.
    """
    tokens: list[str] = []
    for name, value in serve.items():
        tokens += _option_tokens(name, value, schema.options[name])
    return tuple(tokens)


def option_lines(arguments: tuple[str, ...]) -> list[Line]:
    """Cut argv in front of each option, to show one option per line."""
    lines: list[list[str]] = [[]]
    for token in arguments:
        if token.startswith("--"):
            lines.append([])
        lines[-1].append(token)
    return [tuple(line) for line in lines if line]


def _option_tokens(name: str, value: JsonValue, option: Option) -> list[str]:
    match option.kind:
        case "flag":
            return [f"--{name}"] if value else []
        case "toggle":  # argparse.BooleanOptionalAction
            return [f"--{name}"] if value else [f"--no-{name}"]
        case "list":
            if not isinstance(value, list):
                return []
            return [f"--{name}", *map(_value_text, value)]
        case _:
            return [f"--{name}", _value_text(value)]


def _value_text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    # Sorted keys: equal mappings give equal plan hashes, in whatever order they were written.
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
