"""The screens of `quantize`: recipes, the plan and the result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deckard_deploy.catalog.specs import RecipeSpec
from deckard_deploy.cli.output import say, table
from deckard_deploy.system.text import clock

if TYPE_CHECKING:
    from deckard_deploy.operations.quantize import QuantizePlan

_GIB = 1 << 30


def print_recipes(recipes: Sequence[RecipeSpec]) -> None:
    """Print the recipes, one a line; the settings of a single one, each with its meaning."""
    if len(recipes) > 1:
        table([(recipe.name, recipe.description) for recipe in recipes])
        return
    rows = []
    for name, field in RecipeSpec.model_fields.items():
        value = getattr(recipes[0], name)
        if value is None:
            continue
        shown = ", ".join(value) if isinstance(value, tuple) else str(value)
        rows.append((name, shown, field.description or ""))
    table(rows)


def say_plan(plan: "QuantizePlan") -> None:
    """Print what will be done, before anything is installed."""
    needs, data = plan.needs, plan.data
    say(f"quantize {plan.source}: {plan.linears} linears to NVFP4 by {plan.recipe.name}, on {plan.device}")
    say(
        f"memory   {needs.memory / _GIB:.1f} GiB ({needs.weights / _GIB:.1f} of weights in BF16) of "
        f"{plan.memory / _GIB:.1f} free; the new checkpoint has about {needs.written:,} bytes"
    )
    say(f"texts    {len(data.texts)} of {data.available} in {data.name}, sha256 {data.sha256[:12]}")
    if data.is_for_rehearsals:
        say("warning  the built-in text is for rehearsals only: its scales fit no real use")
    elif len(data.texts) < plan.recipe.samples:
        say(f"warning  the recipe asks for {plan.recipe.samples} texts, and {data.name} has {data.available}")


def print_result(written: dict[str, Any]) -> None:
    """Print sizes, times and errors."""
    size, errors = written["bytes"], written["relative_error_of_weights"]
    worst = max(errors, key=errors.__getitem__)
    seconds = written["seconds"]
    table(
        [
            ("size", f"{size['before']:,} bytes before, {size['after']:,} now"),
            ("time", ", ".join(f"{phase} {clock(each)}" for phase, each in seconds.items())),
            ("NaN scales", str(written["nan_scales"]["found"])),
            ("error of weights", f"at most {errors[worst]:.4f} ({worst})"),
        ]
    )
