"""deckard.yaml and `--set key=value` as one `Deployment`."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from deckard_deploy.catalog import library, strict_yaml
from deckard_deploy.catalog.specs import Deployment
from deckard_deploy.catalog.strict_yaml import Document, Json, KeyPath, printable
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import BadInputError

SECTIONS = ("serve", "environment", "container", "publish")


def read_deployment(path: Path | None) -> Document:
    """deckard.yaml as a document; empty when `path` is None. Raises BadInputError."""
    if path is None:
        return Document(source="command line", data={}, lines={})
    return strict_yaml.parse(library.read_text(path), source=str(path))


def with_settings(document: Document, settings: Iterable[str]) -> Deployment:
    """The document with each `key=value` laid over it.

    A key is a dotted path of deckard.yaml (`publish.port`, `serve.max-model-len`), or a bare vLLM option
    (`max-model-len`, `max_model_len`), or a bare top-level key, with either again. Values are YAML scalars or JSON.

    Raises BadInputError, naming the setting.
    """
    data: dict[str, Any] = _copied(document.data)
    origins: dict[KeyPath, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise BadInputError(f"--set {printable(setting)}: KEY=VALUE was expected")
        if key in SECTIONS:
            raise BadInputError(
                f"--set {printable(setting)}: {key} is a section: name a key in it, {key}.KEY=VALUE"
            )
        *sections, leaf = _path(key)
        target = data
        for section in sections:
            inner = target.setdefault(section, {})
            if not isinstance(inner, dict):
                raise BadInputError(f"--set {printable(setting)}: {section} is not a section")
            target = inner
        # A variable is text whatever it looks like.
        is_text = sections == ["environment"] and not strict_yaml.is_null(text)
        target[leaf] = text if is_text else _value(setting, text)
        origins[(*sections, leaf)] = f"--set {printable(setting)}"
    return validate(replace(document, data=data, origins=origins), Deployment)


def _path(key: str) -> tuple[str, ...]:
    section, dot, rest = key.partition(".")
    if dot and section in SECTIONS:
        return (section, rest.replace("_", "-") if section == "serve" else rest)
    if (own := key.replace("-", "_")) in Deployment.model_fields:
        return (own,)
    # Any other word is taken for a vLLM option; resolution knows the engine, and so whether it has that option.
    return ("serve", key.replace("_", "-"))


def _value(setting: str, text: str) -> Json:
    if text.startswith(("{", "[", '"', "'")):
        return strict_yaml.parse(f"value: {text}", source=f"--set {printable(setting)}").data["value"]
    # Other text is taken to the letter (it may hold ': ' or '#') unless it is null, true, false or a number.
    parsed = strict_yaml.plain_scalar(text)
    return text if parsed is None and not strict_yaml.is_null(text) else parsed


def _copied(data: dict[str, Json]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
