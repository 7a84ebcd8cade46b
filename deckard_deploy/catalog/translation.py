"""The meaning of settings for an earlier vLLM on a later one: schemas/<engine's schema>.changes.yaml.

A new release needs its schema and such a file; scripts/compare_engines.py lists the changes that the file
must cover.
"""

from functools import cache

from pydantic import Field

from deckard_deploy.catalog import strict_yaml
from deckard_deploy.catalog.specs import Environment, Serve, Spec
from deckard_deploy.catalog.strict_yaml import shortened
from deckard_deploy.catalog.validation import validate
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir
from deckard_deploy.system.suggestion import closest
from deckard_deploy.system.text import escaped


class ReleaseChanges(Spec):
    """The changes between the previous release and this one.

    variables: variable -> option -> value of the variable -> value of the option. defaults: options that are
    always rendered, with their previous default. accepted_defaults: options whose new default is as good.
    removed_options, removed_variables: name -> advice.
    """

    variables: dict[str, dict[str, dict[str, str]]] = Field(default_factory=dict)
    defaults: Serve = Field(default_factory=dict)
    accepted_defaults: tuple[str, ...] = ()
    removed_options: dict[str, str] = Field(default_factory=dict)
    removed_variables: dict[str, str] = Field(default_factory=dict)


@cache
def release_changes(schema: str) -> ReleaseChanges:
    """Return the changes of that schema; empty for the first one."""
    path = catalog_dir() / "schemas" / f"{schema}.changes.yaml"
    if not path.exists():
        return ReleaseChanges()
    return validate(strict_yaml.parse(path.read_text("utf-8"), source=path.name), ReleaseChanges)


def migrate_options(schema: str, serve: Serve, environment: Environment) -> tuple[Serve, Environment]:
    """Return the options and variables that mean the same on that schema.

    Raises BadInputError for a setting that no option of the schema expresses.
    """
    known = release_changes(schema)
    _refuse_removed(known, schema, serve, environment)
    kept: Environment = {}
    options: Serve = {}
    for name, value in environment.items():
        if name in known.variables:
            options |= _variable_as_options(known.variables[name], schema, name, value)
        else:
            kept[name] = value
    for name, option_value in options.items():
        if name in serve and serve[name] != option_value:
            raise BadInputError(f"a variable and serve.{name} say different things: keep serve.{name}")
    return {**known.defaults, **serve, **options}, kept


def _refuse_removed(known: ReleaseChanges, schema: str, serve: Serve, environment: Environment) -> None:
    for name in serve:
        if name in known.removed_options:
            raise BadInputError(f"{schema} has no option --{name} any more: {known.removed_options[name]}")
    for name in environment:
        if name in known.removed_variables:
            raise BadInputError(f"{schema} does not read {name} any more: {known.removed_variables[name]}")


def _variable_as_options(by_option: dict[str, dict[str, str]], schema: str, name: str, value: str) -> Serve:
    """Return the options for one value of a variable. Raises BadInputError for an unknown value."""
    known_values: set[str] = set()
    for values in by_option.values():
        known_values |= set(values)
    if by_option and value not in known_values:
        near = closest(value, known_values) or f"; known: {', '.join(sorted(known_values))}"
        raise BadInputError(f"environment.{escaped(name)} {shortened(value)} has no option in {schema}{near}")
    return {option: values[value] for option, values in by_option.items() if value in values}
