"""The options and environment variables that one vLLM release accepts, as its own code declares them.

scripts/extract_option_schema.py writes the JSON files under schemas/ from that release's parser
(vllm/entrypoints/openai/cli_args.py) and vllm/envs.py. No other option or variable is rendered.
"""

import json
import operator
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import JsonValue

from deckard_deploy.catalog.strict_yaml import shortened
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir
from deckard_deploy.system.suggestion import closest
from deckard_deploy.system.text import escaped

OptionKind = Literal["flag", "toggle", "integer", "number", "text", "json", "list"]


# NamedTuples, because building 230 pydantic models would take longer than rendering a plan. The files need no
# validation here: a test compares them with the release's parser.
class Option(NamedTuple):
    """One option of `vllm serve`.

    choices: the accepted values; for an integer, words that stand for a number. items: the kind of a list's
    items. bounds: limits by their name in pydantic.Field (gt, ge, lt, le).
    """

    kind: OptionKind
    choices: tuple[int | str, ...] = ()
    items: Literal["integer", "text"] = "text"
    bounds: Mapping[str, float] = MappingProxyType({})
    default: JsonValue = None


class RefusedOptionError(BadInputError):
    """An option that the release does not have, or whose value it refuses. name: without dashes."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class OptionSchema(NamedTuple):
    """The options by name (without dashes) and the environment variables of one release."""

    vllm_version: str
    options: dict[str, Option]
    environment: tuple[str, ...]

    def check_option(self, name: str, value: JsonValue) -> None:
        """Raise BadInputError when this release has no such option, or refuses the value."""
        option = self.options.get(name)
        if option is None:
            near = closest(name, self.options)
            raise RefusedOptionError(name, f"vLLM {self.vllm_version} has no option --{escaped(name)}{near}")
        reason = _mismatch(option, value)
        if reason:
            raise RefusedOptionError(name, f"--{name} {shortened(value)}: {reason}")


def _mismatch(option: Option, value: JsonValue) -> str:
    """Return the reason why the option refuses the value, or ""."""
    match option.kind:
        case "flag" | "toggle":
            return "" if isinstance(value, bool) else "true or false was expected"
        case "integer":
            return _integer_mismatch(option, value)
        case "number":
            return _number_mismatch(option, value)
        case "json":
            return "" if _is_json(value) else "a mapping or a list was expected"
        case "list":
            return _list_mismatch(option, value)
        case "text":
            return _text_mismatch(option, value)


def _integer_mismatch(option: Option, value: JsonValue) -> str:
    if isinstance(value, str) and value in option.choices:
        return ""
    if not isinstance(value, int) or isinstance(value, bool):
        return f"a whole number was expected{_written_out(value)}"
    numbers = [choice for choice in option.choices if isinstance(choice, int)]
    if numbers and value not in numbers:
        return f"one of {_join(numbers)} was expected"
    return _out_of_bounds(option, value)


def _written_out(value: JsonValue) -> str:
    """Return what vLLM reads 64k and 64K as: thousands and 1,024s, which are easily confused.

    human_readable_int, vllm/engine/arg_utils.py:2286 (0.19.1).
    """
    found = re.fullmatch(r"(\d{1,9})([kKmM])", str(value))
    if not found:
        return ""
    number, power = int(found[1]), 1 if found[2] in "kK" else 2
    letter = found[2].lower()
    thousands, powers_of_two = number * 1000**power, number * 1024**power
    return (
        f", written out: {powers_of_two} (vLLM's {number}{letter.upper()}) or {thousands} ({number}{letter})"
    )


def _number_mismatch(option: Option, value: JsonValue) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "a number was expected"
    return _out_of_bounds(option, value)


def _out_of_bounds(option: Option, value: float) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    limits = []
    broken = False
    for name, bound in option.bounds.items():
        limits.append(f"{signs[name]} {bound:g}")
        if not getattr(operator, name)(value, bound):
            broken = True
    if not broken:
        return ""
    return f"a value {' and '.join(limits)} was expected"


def _list_mismatch(option: Option, value: JsonValue) -> str:
    if not isinstance(value, list) or not value:
        return "a list of at least one value was expected"
    item = Option(kind=option.items, choices=option.choices)
    for entry in value:
        reason = _mismatch(item, entry)
        if reason:
            return reason
    return ""


def _text_mismatch(option: Option, value: JsonValue) -> str:
    if not isinstance(value, str):
        return "text was expected: quote it"
    if value.startswith("-"):  # argparse would read the value as the next option
        return "a value cannot begin with '-'"
    if option.choices and value not in option.choices:
        return f"one of {_join(option.choices)} was expected{closest(value, map(str, option.choices))}"
    return ""


def _is_json(value: JsonValue) -> bool:
    """Return True for a mapping or a list, also as JSON text."""
    if not isinstance(value, str):
        return isinstance(value, dict | list)
    try:
        return isinstance(json.loads(value), dict | list)
    except ValueError:
        return False


def _join(choices: Iterable[int | str]) -> str:
    return ", ".join(map(str, choices))


@cache
def option_schema(name: str) -> OptionSchema:
    """Return the committed schema of that name, for example `vllm-0.19.1`."""
    data = json.loads((catalog_dir() / "schemas" / f"{name}.json").read_text("utf-8"))
    return OptionSchema(
        vllm_version=data["vllm_version"],
        options={key: _parse_option(entry) for key, entry in data["options"].items()},
        environment=tuple(data["environment"]),
    )


def _parse_option(entry: dict[str, Any]) -> Option:
    fields: dict[str, Any] = {**entry, "choices": tuple(entry.get("choices", ()))}
    return Option(**fields)
