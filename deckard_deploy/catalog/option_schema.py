"""What one vLLM release accepts: its options and its environment variables, as its own code declares them.

The JSON files under schemas/ are written by scripts/extract_option_schema.py from that release's parser
(vllm/entrypoints/openai/cli_args.py) and vllm/envs.py. Nothing is rendered that is not in them.
"""

import json
import operator
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from pydantic import JsonValue

from deckard_deploy.catalog.strict_yaml import printable, shortened
from deckard_deploy.catalog.validation import closest
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir

Kind = Literal["flag", "toggle", "integer", "number", "text", "json", "list"]


# NamedTuples: the files are our own, and held against the release's parser by a test; building 230 pydantic
# models would take longer than rendering a plan.
class Option(NamedTuple):
    """One option of `vllm serve`.

    `choices`: the values it takes; words beside an integer's stand for a number. `items`: what a list holds.
    `bounds`: limits by their name in pydantic.Field (gt, ge, lt, le).
    """

    kind: Kind
    choices: tuple[int | str, ...] = ()
    items: Literal["integer", "text"] = "text"
    bounds: Mapping[str, float] = MappingProxyType({})
    default: JsonValue = None


class OptionSchema(NamedTuple):
    """The options by name (without dashes) and the environment variables of one release."""

    vllm_version: str
    options: dict[str, Option]
    environment: tuple[str, ...]

    def check_option(self, name: str, value: JsonValue) -> None:
        """Raise BadInputError when this release has no such option, or not with such a value."""
        option = self.options.get(name)
        if option is None:
            near = closest(name, self.options)
            raise BadInputError(f"vLLM {self.vllm_version} has no option --{printable(name)}{near}")
        reason = _mismatch(option, value)
        if reason:
            raise BadInputError(f"--{name} {shortened(value)}: {reason}")

    def check_environment(self, name: str, also: tuple[str, ...]) -> None:
        """Raise BadInputError for a variable that neither vLLM nor (`also`) a library under it reads."""
        known = {*self.environment, *also}
        if name not in known:
            near = closest(name, known)
            raise BadInputError(f"nothing in vLLM {self.vllm_version} reads the variable {name}{near}")


def _mismatch(option: Option, value: JsonValue) -> str:  # noqa: PLR0911  one line per kind of option
    match option.kind:
        case "flag" | "toggle":
            return "" if isinstance(value, bool) else "true or false was expected"
        case "integer":
            return _integer_mismatch(option, value)
        case "number":
            if not isinstance(value, int | float) or isinstance(value, bool):
                return "a number was expected"
            return _out_of_bounds(option, value)
        case "json":
            return "" if _is_json(value) else "a mapping or a list was expected"
        case "list":
            if not isinstance(value, list) or not value:
                return "a list of at least one value was expected"
            item = Option(kind=option.items, choices=option.choices)
            return next((reason for entry in value if (reason := _mismatch(item, entry))), "")
        case "text":
            return _text_mismatch(option, value)


def _integer_mismatch(option: Option, value: JsonValue) -> str:
    # vLLM reads 64k and 1.5M as well (human_readable_int, vllm/engine/arg_utils.py); we take digits only.
    if isinstance(value, str) and value in option.choices:
        return ""
    if not isinstance(value, int) or isinstance(value, bool):
        return "a whole number was expected"
    numbers = [choice for choice in option.choices if isinstance(choice, int)]
    if numbers and value not in numbers:
        return f"one of {_listed(numbers)} was expected"
    return _out_of_bounds(option, value)


def _out_of_bounds(option: Option, value: float) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    broken = any(not getattr(operator, name)(value, bound) for name, bound in option.bounds.items())
    limits = " and ".join(f"{signs[name]} {bound:g}" for name, bound in option.bounds.items())
    return f"a value {limits} was expected" if broken else ""


def _text_mismatch(option: Option, value: JsonValue) -> str:
    if not isinstance(value, str):
        return "text was expected: quote it"
    if value.startswith("-"):  # argparse would take the value for the next option
        return "a value cannot begin with '-'"
    if option.choices and value not in option.choices:
        return f"one of {_listed(option.choices)} was expected{closest(value, map(str, option.choices))}"
    return ""


def _is_json(value: JsonValue) -> bool:
    if not isinstance(value, str):
        return isinstance(value, dict | list)
    try:
        return isinstance(json.loads(value), dict | list)
    except ValueError:
        return False


def _listed(choices: Iterable[int | str]) -> str:
    return ", ".join(map(str, choices))


@cache
def option_schema(name: str) -> OptionSchema:
    """The committed schema of that name, for example `vllm-0.19.1`."""
    data = json.loads((catalog_dir() / "schemas" / f"{name}.json").read_text("utf-8"))
    return OptionSchema(
        vllm_version=data["vllm_version"],
        options={key: _option(entry) for key, entry in data["options"].items()},
        environment=tuple(data["environment"]),
    )


def _option(entry: dict[str, Any]) -> Option:
    fields: dict[str, Any] = {**entry, "choices": tuple(entry.get("choices", ()))}
    return Option(**fields)
