"""`qualify`: a table of what an engine of the catalog was checked for."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import json_option
from deckard_deploy.cli.output import table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import IntegrityError


@click.command()
@click.argument("engine")
@click.option(
    "--python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Python of an environment that has the release; without it the catalog alone is checked.",
)
@json_option
def qualify(engine: str, python: Path | None, *, as_json: bool) -> None:
    """Check a vLLM release: options, plugin, log lines, clients, advisories.

    With --python (in a checkout) the release itself is asked: its parser, its layers with the plugin, and a
    server of the tiny model. The exit code is 4 when a check fails.

    \b
    Example:
      deckard-deploy qualify vllm-0.33.0
    """
    found = operations.qualify.qualify(engine, python, TERMINAL)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        table([(check.name, check.verdict, check.detail) for check in found])
    failed = [check.name for check in found if check.verdict == "fail"]
    if failed:
        raise IntegrityError(
            f"{engine} is not qualified: {', '.join(failed)}",
            hint="docs/architecture.md, Add a vLLM release (engine)",
        )
