"""`doctor`: the findings about this machine."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import short_choice_options, state_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.cli.screens.findings import print_findings
from deckard_deploy.operations.options import Choice


@click.command()
@short_choice_options
@click.option(
    "--facts", "source", type=click.Path(path_type=Path), help="Check saved facts instead of this machine."
)
@click.option(
    "--save", "saved", type=click.Path(path_type=Path), help="Also write the facts that were read, as JSON."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@state_option
def doctor(
    *, choice: Choice, source: Path | None, saved: Path | None, as_json: bool, state_dir: Path | None
) -> int:
    """Check this machine for known problems.

    `doctor` is read-only and does not need root. The exit code is 3 if a finding would stop the deployment.

    \b
    Example:
      deckard-deploy doctor --profile spark
    """
    examined = operations.doctor.examine(choice, state_dir, TERMINAL, source=source, saved=saved)
    if as_json:
        facts = {
            "profile": examined.profile,
            "failed": examined.failed,
            "findings": [vars(finding) for finding in examined.findings],
        }
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print_findings(examined.findings)
    return 3 if examined.failed else 0
