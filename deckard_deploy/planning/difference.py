"""What changed between two plans, in the words of vLLM options and compose keys."""

from dataclasses import dataclass
from typing import Any

from deckard_deploy.planning.plan import LaunchPlan


@dataclass(frozen=True, kw_only=True)
class Change:
    """One setting: None means that it was, or is, absent."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.name} {self.after}".rstrip()
        if self.after is None:
            return f"- {self.name} {self.before}".rstrip()
        return f"~ {self.name} {self.before} -> {self.after}"


def difference(before: LaunchPlan, after: LaunchPlan) -> tuple[Change, ...]:
    """Every setting whose value differs, options first; empty when the plans are equal."""
    old, new = _settings(before), _settings(after)
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        Change(name=name, before=old.get(name), after=new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    )


def _settings(plan: LaunchPlan) -> dict[str, str]:
    data = plan.model_dump(mode="json")
    settings = _options(data.pop("arguments"))
    settings |= {f"patch {patch['name']}": patch["sha256"][:12] for patch in data.pop("patches")}
    settings |= {f"mount {mount['target']}": mount["source"] for mount in data.pop("mounts")}
    for key, value in data.items():
        settings |= _flattened(key, value)
    return settings


def _options(arguments: list[str]) -> dict[str, str]:
    """`--name value …` pairs; an option without a value maps to the empty string."""
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
    if isinstance(value, dict):
        return {k: v for inner, item in value.items() for k, v in _flattened(f"{key}.{inner}", item).items()}
    if isinstance(value, list):
        return {f"{key}[{index}]": str(item) for index, item in enumerate(value)}
    return {} if value is None else {key: str(value)}
