"""The output of `--json`, checked against the documented formats."""

import json
from typing import Any

from pydantic import TypeAdapter

from deckard_deploy.operations.json_formats import FORMATS


def checked(command: str, output: str) -> Any:
    """Return the data of a command's `--json`. Raises ValidationError if it differs from the documented format."""
    (format_,) = [each for each in FORMATS if each.command == command]
    TypeAdapter(format_.kind).validate_json(output)
    return json.loads(output)
