"""`compare`: two served models on a text, by the log-probabilities of their engines."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.names import deployment_names
from deckard_deploy.cli.options import json_option, state_option
from deckard_deploy.cli.output import say
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError


@click.command()
@click.argument("a", metavar="A", shell_complete=deployment_names)
@click.argument("b", metavar="[B]", required=False, shell_complete=deployment_names)
@click.option(
    "--text", type=click.Path(path_type=Path), help="Text in UTF-8 that neither model was trained on."
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Without B: keep the scores of A, to compare B with them when A no longer runs.",
)
@click.option(
    "--passages",
    type=click.IntRange(10, 10_000),
    default=64,
    show_default=True,
    help="At most so many passages of the text.",
)
@click.option(
    "--characters",
    type=click.IntRange(20, 1_000_000),
    default=1500,
    show_default=True,
    help="Length of a passage; its tokens must fit into max-model-len.",
)
@state_option
@json_option
def compare(  # noqa: PLR0913  one parameter per option
    *,
    a: str,
    b: str | None,
    text: Path | None,
    save: Path | None,
    passages: int,
    characters: int,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Compare two served models on a text of your own.

    A and B are deployments that run, or files of --save. Both engines report the log-probabilities of the text's
    tokens. From them come perplexity, a lower bound of the KL divergence (of the 20 likeliest tokens at each place) and
    the share of tokens at which both find the same token likeliest, each with a 99 % bootstrap interval over passages.
    "no difference seen" means that the interval includes equality. Models with different tokenizers are refused.

    \b
    Example:
      deckard-deploy compare bf16 nvfp4 --text held-out.txt
    """
    if (b is None) != (save is not None):
        raise BadInputError("A with B, or A with --save", hint="deckard-deploy compare A B --text FILE")
    if save and save.suffix != ".json":
        raise BadInputError(f"--save {save}: a name that ends in .json was expected", hint="--save A.json")
    read = operations.compare.read_text(text, characters=characters, most=passages) if text else None
    first = operations.compare.side(a, read, state_dir, TERMINAL)
    if b is None and save:
        operations.compare.save(save, first)
        say(f"compare  the scores of {a} are in {save}; next: deckard-deploy compare {save} B --text {text}")
        return
    second = operations.compare.side(str(b), read, state_dir, TERMINAL)
    compared = operations.compare.compare(first, second)
    if as_json:
        click.echo(json.dumps(operations.compare.as_json(compared), indent=2))
    else:
        screens.compare.print_comparison(compared)
