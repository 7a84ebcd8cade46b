"""Validate a strict YAML document as a spec; errors name the file, line, key path and the likely intent."""

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from deckard_deploy.catalog.strict_yaml import Document, KeyPath, shortened
from deckard_deploy.errors import BadInputError
from deckard_deploy.system.suggestion import closest

SpecT = TypeVar("SpecT", bound=BaseModel)


# pydantic's words for the usual mistakes, in the words of the options of vLLM.
_EXPECTED = {
    "int_type": "a whole number was expected",
    "float_type": "a number was expected",
    "bool_type": "true or false was expected",
    "string_type": "text was expected: quote it",
}


def validate(document: Document, spec: type[SpecT]) -> SpecT:
    """Return the document as `spec`.

    Raises BadInputError for the first problem, as `file:line: key.path: reason`.
    """
    try:
        # Strict pydantic accepts an array for a tuple in JSON only.
        return spec.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise BadInputError(_one_line(document, spec, error)) from error


def _one_line(document: Document, spec: type[BaseModel], error: ValidationError) -> str:
    details = error.errors(include_url=False)
    # An unknown key often explains a missing one, so it is named first.
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    location = first["loc"]
    if first["type"] == "extra_forbidden":
        known = _fields_at(spec, location[:-1])
        hint = closest(str(location[-1]), known) or "; known: " + ", ".join(known)
        reason = f"unknown key{hint}"
    elif first["type"] == "missing":
        reason = f"{location[-1]!r} is required"
    else:
        message = _EXPECTED.get(first["type"]) or first["msg"].removeprefix("Value error, ")
        reason = f"{shortened(first['input'])}: {message[0].lower()}{message[1:]}"
        if first["type"] == "int_type" and str(first["input"]).isdecimal():
            reason += ", without quotes"
    if len(details) > 1:
        reason += f" (and {len(details) - 1} more)"
    return f"{document.where(_key_path(document, location))}: {reason}"


def _key_path(document: Document, location: tuple[int | str, ...]) -> KeyPath:
    """Return pydantic's location without parts that are not in the file (names of union members, '[key]')."""
    written = [*document.lines, *document.origins]
    path: KeyPath = ()
    for part in location:
        longer = (*path, part)
        if any(known[: len(longer)] == longer for known in written):
            path = longer
    return path


def _fields_at(spec: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the spec at a location."""
    current = spec
    for part in location:
        field = current.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            current = annotation
    return list(current.model_fields)
