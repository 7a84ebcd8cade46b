"""`quantize`: a checkpoint in four bits from one in BF16."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.names import catalog_names
from deckard_deploy.cli.options import dry_run_option, json_option, state_option
from deckard_deploy.cli.output import say
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError


@click.command()
@click.argument("source", metavar="DIR|MODEL", required=False, shell_complete=catalog_names("models"))
@click.option(
    "--recipe",
    metavar="NAME|FILE.yaml",
    help="nvfp4, awq-lite, awq-full, svdquant, or a file.",
)
@click.option(
    "--calibrate",
    metavar="FILE",
    help="Texts (UTF-8), or texts and chats in a .jsonl file; `builtin` is for rehearsals only.",
)
@click.option(
    "--samples", type=click.IntRange(1, 1_000_000), help="Texts to use, in place of the recipe's number."
)
@click.option(
    "-o",
    "--output",
    metavar="NEW",
    type=click.Path(path_type=Path),
    help="Folder to create; it must not exist.",
)
@click.option("--explain", is_flag=True, help="Print the recipes, or the settings of --recipe, and stop.")
@state_option
@dry_run_option
@json_option
def quantize(  # noqa: PLR0913  one parameter per option
    *,
    source: str | None,
    recipe: str | None,
    calibrate: str | None,
    samples: int | None,
    output: Path | None,
    explain: bool,
    state_dir: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Quantize a Gemma 4 in BF16 to NVFP4.

    ModelOpt is installed into an environment of its own at the first use. Recipe nvfp4 runs without a GPU; the others
    search on one. NEW is complete or does not exist: weights, tokenizer, template and processor of the source, a
    quantization-report.json and a model card.

    \b
    Example:
      deckard-deploy quantize ./my-model --recipe nvfp4 --calibrate texts.jsonl -o ./my-model-nvfp4
    """
    if explain:
        if as_json:
            raise BadInputError("--explain has no --json", hint="read the YAML files, or leave one out")
        chosen = [operations.quantize.read_recipe(recipe)] if recipe else operations.quantize.recipes()
        screens.quantize.print_recipes(chosen)
        return
    if source is None or recipe is None or calibrate is None or output is None:
        raise BadInputError(
            "a model, --recipe, --calibrate and -o are needed",
            hint="deckard-deploy quantize DIR --recipe nvfp4 --calibrate FILE -o NEW",
        )
    asked = operations.quantize.QuantizeRequest(
        source=source, recipe=recipe, calibrate=calibrate, samples=samples, output=output
    )
    plan = operations.quantize.plan_quantization(asked, state_dir)
    screens.quantize.say_plan(plan)
    if dry_run:
        say(f"dry run: would write {output}")
        return
    written = operations.quantize.quantize(plan, state_dir, TERMINAL)
    if as_json:
        click.echo(json.dumps(written, indent=2))
    else:
        screens.quantize.print_result(written)
    folder = str(output) if "/" in str(output) else f"./{output}"
    say(f"quantize {output} is complete; next: deckard-deploy up --model {folder}")
