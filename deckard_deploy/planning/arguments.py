"""vLLM options as argv tokens. One token a value, never a shell string."""

import json

from pydantic import JsonValue

from deckard_deploy.catalog.option_schema import Option, OptionSchema
from deckard_deploy.catalog.specs import Serve

Line = tuple[str, ...]


def serve_arguments(serve: Serve, schema: OptionSchema) -> tuple[str, ...]:
    """`{"max-num-seqs": 4}` to `("--max-num-seqs", "4")`, in the order of `serve`.

    Values were checked against `schema` when they were resolved.
    """
    return tuple(
        token for name, value in serve.items() for token in _tokens(name, value, schema.options[name])
    )


def option_lines(arguments: tuple[str, ...]) -> list[Line]:
    """argv cut in front of each option, for one option a line."""
    lines: list[list[str]] = [[]]
    for token in arguments:
        if token.startswith("--"):
            lines.append([])
        lines[-1].append(token)
    return [tuple(line) for line in lines if line]


def _tokens(name: str, value: JsonValue, option: Option) -> tuple[str, ...]:
    match option.kind:
        case "flag":
            return (f"--{name}",) if value else ()
        case "toggle":  # argparse.BooleanOptionalAction
            return (f"--{name}",) if value else (f"--no-{name}",)
        case "list":
            return (f"--{name}", *(_text(item) for item in value)) if isinstance(value, list) else ()
        case _:
            return (f"--{name}", _text(value))


def _text(value: JsonValue) -> str:
    # Sorted keys: the same mapping gives the same plan hash however it was written.
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
