"""The changes between two vLLM releases' option schemas, and those that a profile or model relies on."""

from collections.abc import Iterator

from deckard_deploy.catalog import library, listing
from deckard_deploy.catalog.option_schema import OptionSchema
from deckard_deploy.catalog.translation import ReleaseChanges


def used() -> tuple[set[str], set[str]]:
    """Return the options and variables that any profile or model of the catalog sets."""
    profiles = [library.profile(name) for name in listing.names("profiles")]
    models = [library.model(name) for name in listing.names("models")]
    serves = [profile.serve for profile in profiles] + [model.serve for model in models]
    options = {option for serve in serves for option in serve}
    return options, {variable for profile in profiles for variable in profile.environment}


def compared(old: OptionSchema, new: OptionSchema, answers: ReleaseChanges) -> Iterator[tuple[bool, str]]:
    """Yield every change as (answered, line)."""
    options, variables = used()
    for name in sorted(old.options.keys() - new.options.keys()):
        yield name in answers.removed_options or name not in options, f"option removed: --{name}"
    for name in sorted(old.options.keys() & new.options.keys()):
        before, after = old.options[name], new.options[name]
        if before.default != after.default:
            answered = name in answers.defaults or name in answers.accepted_defaults
            yield answered, f"default changed: --{name} {before.default!r} -> {after.default!r}"
        if gone := sorted(set(map(str, before.choices)) - set(map(str, after.choices))):
            yield name not in options, f"values removed: --{name} {', '.join(gone)}"
        if before.kind != after.kind:
            yield name not in options, f"kind changed: --{name} {before.kind} -> {after.kind}"
    for name in sorted(set(old.environment) - set(new.environment)):
        answered = name in answers.variables or name in answers.removed_variables or name not in variables
        yield answered, f"variable removed: {name}"
    for name in sorted(new.options.keys() - old.options.keys()):
        yield True, f"option new: --{name}"
