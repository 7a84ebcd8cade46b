"""Validate a strict YAML document as a spec; errors name the file, line, key path and the likely intent."""

import difflib
import json
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from deckard_deploy.catalog.strict_yaml import Document, KeyPath, shortened
from deckard_deploy.errors import BadInputError

SpecT = TypeVar("SpecT", bound=BaseModel)


def closest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'X'?`, or "" when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if not near:
        return ""
    return f"; did you mean {near[0]!r}?"


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
        message = first["msg"].removeprefix("Value error, ")
        reason = f"{shortened(first['input'])}: {message[0].lower()}{message[1:]}"
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
