"""Text of a certain form, with an error that says the form in words."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Pattern:
    """Annotates `str`: the whole text must match. pydantic's own constraint would print the expression."""

    expression: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^({self.expression})$"}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.expression, text, re.ASCII):
            raise ValueError(f"{self.words} was expected")
        return text
