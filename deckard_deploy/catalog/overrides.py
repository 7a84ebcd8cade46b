"""Merge deckard.yaml and `--set key=value` into one `Deployment`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deckard_deploy.catalog import library, strict_yaml
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.catalog.strict_yaml import Document, Json, KeyPath
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import BadInputError
from deckard_deploy.system.text import escaped

SECTIONS = ("serve", "environment", "container", "publish")


def read_deployment(path: Path | None) -> Document:
    """Read deckard.yaml as a document; empty when `path` is None. Raises BadInputError."""
    if path is None:
        return Document(source="command line", data={}, lines={})
    return strict_yaml.parse(library.read_text(path), source=str(path))


def with_settings(document: Document, settings: Iterable[str]) -> Deployment:
    """Return the document with each `key=value` applied over it.

    A key is a dotted path of deckard.yaml (`publish.port`, `serve.max-model-len`), a bare vLLM option
    (`max-model-len`, `max_model_len`), or a bare top-level key with '-' or '_'. Values are YAML scalars or
    JSON.

    Raises BadInputError, which names the setting.
    """
    return validate(merged(document, settings), Deployment)


def merged(
    document: Document, settings: Iterable[str], written_as: Mapping[str, str] = MappingProxyType({})
) -> Document:
    """Return the document with each `key=value` over it, and with the origin of each. Raises BadInputError.

    written_as: the settings that stand for an option of their own, as the user typed them.
    """
    data: dict[str, Any] = _copy_sections(document.data)
    origins: dict[KeyPath, str] = {}
    for setting in settings:
        path, text = _split_setting(setting)
        *sections, leaf = path
        target = data
        for section in sections:
            inner = target.setdefault(section, {})
            if not isinstance(inner, dict):
                raise BadInputError(f"--set {escaped(setting)}: {section} is not a section")
            target = inner
        if sections == ["environment"] and not strict_yaml.is_null(text):
            target[leaf] = text  # a variable's value is always text
        else:
            target[leaf] = _parse_value(setting, text)
        origins[path] = escaped(written_as.get(setting, f"--set {setting}"))
    return replace(document, data=data, origins=origins)


def _split_setting(setting: str) -> tuple[tuple[str, ...], str]:
    """Split `key=value` into the key's path in deckard.yaml and the value's text. Raises BadInputError."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise BadInputError(f"--set {escaped(setting)}: KEY=VALUE was expected")
    if key in SECTIONS:
        raise BadInputError(
            f"--set {escaped(setting)}: {key} is a section: name a key in it, {key}.KEY=VALUE"
        )
    return _key_path(key), text


def _key_path(key: str) -> tuple[str, ...]:
    section, dot, rest = key.partition(".")
    if dot and section in SECTIONS:
        if section == "serve":
            rest = rest.replace("_", "-")
        return (section, rest)
    top_level = key.replace("-", "_")
    if top_level in Deployment.model_fields:
        return (top_level,)
    # Any other word may be a vLLM option: only resolution knows the engine and its options.
    return ("serve", key.replace("_", "-"))


def _parse_value(setting: str, text: str) -> Json:
    if text.startswith(("{", "[", '"', "'")):
        return strict_yaml.parse(f"value: {text}", source=f"--set {escaped(setting)}").data["value"]
    # Other text may contain ': ' or '#', so it is not parsed: it is null, true, false, a number, or text.
    parsed = strict_yaml.plain_scalar(text)
    if parsed is None and not strict_yaml.is_null(text):
        return text
    return parsed


def _copy_sections(data: dict[str, Json]) -> dict[str, Any]:
    copy: dict[str, Any] = {}
    for key, value in data.items():
        copy[key] = dict(value) if isinstance(value, dict) else value
    return copy
