"""Read unambiguous YAML, or raise a one-line error with file, line and key path.

PyYAML silently accepts duplicate keys (the last wins), and YAML 1.1 reads `on` as true, `22:22` as 1342,
`010` as 8 and 2026-01-01 as a date. A deployment file needs none of that, so this loader refuses all of it,
together with anchors, aliases, tags and merge keys.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from deckard_deploy.errors import BadInputError
from deckard_deploy.system.text import escaped

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
KeyPath: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1 << 20  # a deployment file is a page long; a megabyte is a mistake or an attack
MAX_DEPTH = 20
MAX_DIGITS = 40  # Python refuses to read thousands of digits, and nothing here needs more
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_LITERALS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
# PyYAML's C parser, where libyaml is installed: five times faster, same nodes.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Document:
    """Plain data, with the line of each key path.

    origins: key paths that a source outside the file has set -> the name of that source.
    """

    source: str
    data: dict[str, Json]
    lines: dict[KeyPath, int]
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Return the origin of the path, or `file:line: key.path` with the line of the nearest parent."""
        parents = [path[:length] for length in range(len(path), -1, -1)]
        for parent in parents:
            if parent in self.origins:
                return self.origins[parent]
        for parent in parents:
            if parent in self.lines:
                return _location(self.source, self.lines[parent], path)
        return _location(self.source, 1, path)


def parse(text: str, *, source: str) -> Document:
    """Read one YAML mapping.

    Raises BadInputError with `source:line: key.path: …` for everything except a plain mapping of plain
    values.
    """
    if len(text) > MAX_BYTES:
        raise BadInputError(f"{source}: {len(text)} characters: a deployment file is at most {MAX_BYTES}")
    lines: dict[KeyPath, int] = {}
    try:
        text.encode()
        _refuse_references(text, source)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadInputError(f"{source}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(f"{source}:1: not YAML: {reason}") from error
    if node is None:
        return Document(source=source, data={}, lines={})
    if not isinstance(node, yaml.MappingNode):
        raise BadInputError(f"{source}:1: a mapping (key: value) was expected")
    data = _value(node, (), source, lines)
    assert isinstance(data, dict)  # noqa: S101  a MappingNode gives a dict: for the type checker
    return Document(source=source, data=data, lines=lines)


def _refuse_references(text: str, source: str) -> None:
    """Raise BadInputError for anchors, aliases, tags and deep nesting.

    Composed nodes no longer show anchors and tags, so this function reads the event stream.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise BadInputError(f"{source}:{line}: anchors and aliases are not accepted: write the value out")
        tag = getattr(event, "tag", None)
        if tag:
            raise BadInputError(f"{source}:{line}: tag {tag!r} is not accepted: remove it")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise BadInputError(f"{source}:{line}: nested deeper than {MAX_DEPTH} levels")


def _value(node: yaml.Node, path: KeyPath, source: str, lines: dict[KeyPath, int]) -> Json:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, path, source, lines))
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), source, lines) for index, item in enumerate(node.value)]
    return _scalar(node, path, source)


def _items(
    node: yaml.MappingNode, path: KeyPath, source: str, lines: dict[KeyPath, int]
) -> Iterator[tuple[str, Json]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
            raise BadInputError(f"{source}:{line}: only plain text can be a key here")
        key = str(key_node.value)
        if key in seen:
            where = _location(source, line, (*path, key))
            raise BadInputError(f"{where}: key given twice (first on line {seen[key]}): keep one")
        seen[key] = line
        value = _value(value_node, (*path, key), source, lines)
        lines[(*path, key)] = line
        yield key, value


def _scalar(node: yaml.Node, path: KeyPath, source: str) -> Json:
    text = str(node.value)
    where = _location(source, node.start_mark.line + 1, path)
    if "\0" in text:
        raise BadInputError(f"{where}: a NUL character: no option, variable or path can hold one")
    if getattr(node, "style", None):  # quoted, or a block: always text
        return text
    plain = plain_scalar(text)
    if plain is not None or is_null(text):
        return plain
    if node.tag != "tag:yaml.org,2002:str":  # on, yes, 22:22, 0x1f, 1_000, 2026-01-01, .inf
        kind = node.tag.rpartition(":")[2]
        raise BadInputError(
            f"{where}: {shortened(text)} would be read as {kind}: quote it, or write it plainly"
        )
    return text


def _location(source: str, line: int, path: KeyPath) -> str:
    dotted = ".".join(escaped(str(part)) for part in path)
    if not dotted:
        return f"{source}:{line}"
    return f"{source}:{line}: {dotted}"


def shortened(value: object) -> str:
    """Return the value's repr, cut to one line of at most 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"


def plain_scalar(text: str) -> bool | int | float | None:
    """Return the number or truth value of unquoted text; None for null and for all other text."""
    if text in _LITERALS:
        return _LITERALS[text]
    if len(text) > MAX_DIGITS:
        return None
    if _INT.match(text):
        return int(text)
    if not _FLOAT.match(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def is_null(text: str) -> bool:
    """Return True if unquoted text means null."""
    return _LITERALS.get(text, False) is None
