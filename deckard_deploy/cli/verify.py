"""`verify`: the weights on this host against their published hashes."""

import json
from pathlib import Path
from typing import Any

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import choice_options, json_option, lock_options, state_option
from deckard_deploy.cli.output import say
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice, LockUse


@click.command()
@choice_options
@state_option
@lock_options
@click.option(
    "--fast", is_flag=True, help="Compare size, times and inode with the last full check; read no content."
)
@click.option("--repair", is_flag=True, help="Set wrong files aside, and download them again.")
@json_option
def verify(  # noqa: PLR0913  one parameter per option
    *,
    choice: Choice,
    state_dir: Path | None,
    lock: LockUse,
    fast: bool,
    repair: bool,
    as_json: bool,
) -> None:
    """Check the hashes of a deployment's weights.

    Every wrong file is named; the exit code is 4 if there is one.

    \b
    Example:
      deckard-deploy verify --profile spark
    """
    run = operations.verify.repair if repair else operations.verify.find_problems
    found = run(choice, state_dir, TERMINAL, lock, fast=fast)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        _print(found)
    if any(found.values()):
        click.get_current_context().exit(4)


def _as_json(found: "operations.verify.Problems") -> dict[str, Any]:
    models = {}
    for name, problems in found.items():
        models[name] = [{"path": problem.path, "cause": problem.cause} for problem in problems]
    return {"models": models, "right": not any(found.values())}


def _print(found: "operations.verify.Problems") -> None:
    for name, problems in found.items():
        for problem in problems:
            click.echo(f"{name}/{problem.path}: {problem.cause}")
        outcome = "wrong; to repair: the same command with --repair" if problems else "right"
        say(f"weights  {name}: {outcome}")
    if not found:
        say("weights  no hashes: the model is generated here, or a folder of your own")
