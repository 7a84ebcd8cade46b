"""A strict YAML document into a spec, with errors that name file, line, key path and the likely intent."""

import difflib
import json
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from deckard_deploy.catalog.strict_yaml import Document, KeyPath, shortened
from deckard_deploy.errors import BadInputError

S = TypeVar("S", bound=BaseModel)


def closest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'X'?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def validate(document: Document, spec: type[S]) -> S:
    """The document as `spec`.

    Raises BadInputError naming the first thing that is wrong, as `file:line: key.path: reason`.
    """
    try:
        # Through JSON, because strict pydantic takes an array for a tuple there, and only there.
        return spec.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise BadInputError(_one_line(document, spec, error)) from error


def _one_line(document: Document, spec: type[BaseModel], error: ValidationError) -> str:
    details = error.errors(include_url=False)
    # An unknown key explains the missing one beside it, so it is named first.
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    path = _key_path(document, first["loc"])
    others = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(spec, first["loc"][:-1])
        hint = closest(str(first["loc"][-1]), known) or "; known: " + ", ".join(known)
        return f"{document.where(path)}: unknown key{hint}{others}"
    if first["type"] == "missing":
        return f"{document.where(path)}: {first['loc'][-1]!r} is required{others}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{document.where(path)}: {shortened(first['input'])}: {message[0].lower()}{message[1:]}{others}"


def _key_path(document: Document, location: tuple[int | str, ...]) -> KeyPath:
    """pydantic's location without the parts that are not in the file (names of union members, '[key]')."""
    written = [*document.lines, *document.origins]
    path: KeyPath = ()
    for part in location:
        longer = (*path, part)
        if any(known[: len(longer)] == longer for known in written):
            path = longer
    return path


def _fields_at(spec: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current = spec
    for part in location:
        field = current.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            current = annotation
    return list(current.model_fields)
