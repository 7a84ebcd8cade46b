"""Random small JSON schemas, and the verdict on the answers to them."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import jsonschema  # type: ignore[import-untyped]  # it has no types
import pydantic_core
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.e2e.structured_requests import MODEL, QUESTION

Schema = dict[str, Any]
LENGTHS = st.integers(0, 6)
NAMES = st.text("abcdefghij", min_size=1, max_size=6)
MAX_TOKENS = 250


def _bounded(low: str, high: str, bounds: st.SearchStrategy[int]) -> st.SearchStrategy[Schema]:
    """Return schemas with none, one or both of two bounds, the lower one below."""

    def both(pair: tuple[int, int]) -> Schema:
        return {low: min(pair), high: max(pair)}

    one = st.fixed_dictionaries({low: bounds})
    return st.one_of(st.just({}), one, st.tuples(bounds, bounds).map(both))


def _typed(name: str, rest: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return rest.map(lambda found: {"type": name, **found})


LEAVES = st.one_of(
    _typed("string", _bounded("minLength", "maxLength", LENGTHS)),
    _typed("integer", _bounded("minimum", "maximum", st.integers(-50, 50))),
    st.sampled_from([{"type": "number"}, {"type": "boolean"}, {"type": "null"}]),
    st.lists(NAMES, min_size=1, max_size=3, unique=True).map(lambda names: {"enum": names}),
    NAMES.map(lambda name: {"const": name}),
    st.sampled_from(["^[a-c]{2}$", "^[0-9]{3}-[0-9]{2}$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
)


def _arrays(items: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    lengths = _bounded("minItems", "maxItems", st.integers(0, 3))
    return st.tuples(items, lengths).map(lambda pair: {"type": "array", "items": pair[0], **pair[1]})


def _objects(values: st.SearchStrategy[Schema], *, at_least: int = 0) -> st.SearchStrategy[Schema]:
    @st.composite
    def draw_object(draw: st.DrawFn) -> Schema:
        properties = draw(st.dictionaries(NAMES, values, min_size=at_least, max_size=4))
        required = [name for name in properties if draw(st.booleans())]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    return draw_object()


def _nested(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    """Return schemas that may have one level more."""
    either = st.lists(inner, min_size=2, max_size=2).map(lambda parts: {"anyOf": parts})
    return st.one_of(inner, _arrays(inner), _objects(inner, at_least=1), either)


SCHEMAS = _objects(_nested(_nested(LEAVES)), at_least=1)


def schemas(count: int, number: int) -> list[Schema]:
    """Return `count` schemas that differ in more than names.

    They are the same for the same seed `number` and release of Hypothesis.
    """
    found: dict[str, Schema] = {}

    @seed(number)
    @settings(
        max_examples=count * 10,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEMAS)
    def collect(schema: Schema) -> None:
        found.setdefault(re.sub("[a-j]{1,6}", "x", json.dumps(schema)), schema)

    collect()
    return list(found.values())[:count]


class Result(NamedTuple):
    """The verdict on one answer, and what was asked for and came."""

    verdict: str
    thinking: bool
    stream: bool
    schema: Schema
    text: str


def judged(url: str, schemas: Sequence[Schema], *, at_once: int = 4) -> Iterator[Result]:
    """Ask for a document of each schema, with thinking and without, streamed and whole."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda case: _ask(url, *case), product(schemas, (False, True), (False, True)))


def _ask(url: str, schema: Schema, thinking: bool, stream: bool) -> Result:  # noqa: FBT001  a case
    body = {
        "model": MODEL,
        "messages": QUESTION,
        "max_tokens": MAX_TOKENS,
        "stream": stream,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "chat_template_kwargs": {"enable_thinking": thinking},
    }
    response = requests.post(f"{url}/v1/chat/completions", json=body, timeout=300)
    if response.status_code == 400:
        return Result("refused", thinking, stream, schema, response.text)
    text, finish = "", ""
    lines = response.content.splitlines() if stream else [b"data: " + response.content]
    for line in lines:
        if line.startswith(b"data: {"):
            for choice in json.loads(line.removeprefix(b"data: ")).get("choices", []):
                text += choice["delta" if stream else "message"].get("content") or ""
                finish = choice["finish_reason"] or finish
    return Result(_verdict(text, finish, schema), thinking, stream, schema, text)


def _verdict(text: str, finish: str, schema: Schema) -> str:
    """Return `valid`, `prefix` (cut off in a document), `no prefix` (cut off in something else) or `wrong`."""
    if finish == "length":
        try:
            pydantic_core.from_json(text, allow_partial=True)
        except ValueError:
            return "no prefix"
        return "prefix"
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return "wrong"
    return "valid"


def table(results: Sequence[Result]) -> dict[tuple[bool, bool], Counter[str]]:
    """Count the verdicts by thinking and stream."""
    counts: dict[tuple[bool, bool], Counter[str]] = {}
    for one in results:
        counts.setdefault((one.thinking, one.stream), Counter())[one.verdict] += 1
    return counts
