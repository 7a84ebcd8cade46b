"""What settings written for an earlier vLLM mean on a later one: schemas/<engine's schema>.changes.yaml.

A release is added by its schema and such a file; scripts/compare_engines.py says what the file must answer for.
"""

from functools import cache

from pydantic import Field

from deckard_deploy.catalog import strict_yaml
from deckard_deploy.catalog.specs import Environment, Serve, Spec
from deckard_deploy.catalog.strict_yaml import printable, shortened
from deckard_deploy.catalog.validation import closest, validate
from deckard_deploy.errors import BadInputError
from deckard_deploy.resources import catalog_dir


class Changes(Spec):
    """Between the release before and this one.

    variables: variable -> option -> the variable's value -> the option's. defaults: options that are always rendered,
    with the value that they had before; accepted_defaults: those whose new one is as good. removed_options,
    removed_variables: name -> what to do instead.
    """

    variables: dict[str, dict[str, dict[str, str]]] = Field(default_factory=dict)
    defaults: Serve = Field(default_factory=dict)
    accepted_defaults: tuple[str, ...] = ()
    removed_options: dict[str, str] = Field(default_factory=dict)
    removed_variables: dict[str, str] = Field(default_factory=dict)


@cache
def changes(schema: str) -> Changes:
    """The changes of that schema; none when it is the first one."""
    path = catalog_dir() / "schemas" / f"{schema}.changes.yaml"
    if not path.exists():
        return Changes()
    return validate(strict_yaml.parse(path.read_text("utf-8"), source=path.name), Changes)


def translated(schema: str, serve: Serve, environment: Environment) -> tuple[Serve, Environment]:
    """The same settings in the words of that schema. Raises BadInputError for one that has no words there."""
    known = changes(schema)
    for name in serve:
        if name in known.removed_options:
            raise BadInputError(f"{schema} has no option --{name} any more: {known.removed_options[name]}")
    for name in environment:
        if name in known.removed_variables:
            raise BadInputError(f"{schema} does not read {name} any more: {known.removed_variables[name]}")
    options: Serve = {}
    for name, value in environment.items():
        options |= _as_options(known, schema, name, value)
    both = [name for name in options if name in serve and serve[name] != options[name]]
    if both:
        raise BadInputError(f"a variable and serve.{both[0]} say different things: keep serve.{both[0]}")
    left = {name: value for name, value in environment.items() if name not in known.variables}
    return {**known.defaults, **serve, **options}, left


def _as_options(known: Changes, schema: str, name: str, value: str) -> Serve:
    by_option = known.variables.get(name, {})
    words = {word for values in by_option.values() for word in values}
    if by_option and value not in words:
        near = closest(value, words) or f"; known: {', '.join(sorted(words))}"
        raise BadInputError(
            f"environment.{printable(name)} {shortened(value)} has no option in {schema}{near}"
        )
    return {option: values[value] for option, values in by_option.items() if value in values}
