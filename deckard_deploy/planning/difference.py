"""The settings that differ between two plans, named like vLLM options and compose keys."""

from dataclasses import dataclass
from typing import Any

from deckard_deploy.planning.plan import LaunchPlan


@dataclass(frozen=True, kw_only=True)
class SettingChange:
    """One changed setting; before or after is None where the setting is absent."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.name} {self.after}".rstrip()
        if self.after is None:
            return f"- {self.name} {self.before}".rstrip()
        return f"~ {self.name} {self.before} -> {self.after}"


def difference(before: LaunchPlan, after: LaunchPlan) -> tuple[SettingChange, ...]:
    """Return every setting whose value differs, options first; empty when the plans are equal."""
    old = _settings(before)
    new = _settings(after)
    changes = []
    for name in old | new:
        if old.get(name) != new.get(name):
            changes.append(SettingChange(name=name, before=old.get(name), after=new.get(name)))
    return tuple(changes)


def _settings(plan: LaunchPlan) -> dict[str, str]:
    data = plan.model_dump(mode="json")
    settings = _options(data.pop("arguments"))
    for patch in data.pop("patches"):
        settings[f"patch {patch['name']}"] = patch["sha256"][:12]
    for mount in data.pop("mounts"):
        settings[f"mount {mount['target']}"] = mount["source"]
    for key, value in data.items():
        settings |= _flattened(key, value)
    return settings


def _options(arguments: list[str]) -> dict[str, str]:
    """Map `--name` to its values, joined by spaces; an option without a value maps to the empty string."""
    options = {"model folder": arguments[0]}
    name = ""
    for token in arguments[1:]:
        if token.startswith("--"):
            name = token
            options[name] = ""
        else:
            options[name] = f"{options[name]} {token}".strip()
    return options


def _flattened(key: str, value: Any) -> dict[str, str]:  # noqa: ANN401  JSON of any shape
    """Map dotted paths to the scalars of a JSON value; null has no entry."""
    if value is None:
        return {}
    if isinstance(value, list):
        return {f"{key}[{index}]": str(item) for index, item in enumerate(value)}
    if not isinstance(value, dict):
        return {key: str(value)}
    flat: dict[str, str] = {}
    for inner, item in value.items():
        flat |= _flattened(f"{key}.{inner}", item)
    return flat
