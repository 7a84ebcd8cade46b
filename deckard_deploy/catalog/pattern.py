"""A constraint for text of a certain form, whose error describes the form in words."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class MatchesText:
    """An annotation of `str`: the whole text must match. pydantic's own error would print the expression."""

    expression: str
    words: str

    def __get_pydantic_core_schema__(
        self,
        source: Any,  # noqa: ANN401  pydantic's signature
        handler: GetCoreSchemaHandler,
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^({self.expression})$"}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.expression, text, re.ASCII):
            raise ValueError(f"{self.words} was expected")
        return text
