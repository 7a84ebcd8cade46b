"""`sbom`: the parts of a deployment as a CycloneDX 1.6 document."""

import json
from pathlib import Path

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import choice_options, state_option
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice


@click.command()
@choice_options
@state_option
def sbom(*, choice: Choice, state_dir: Path | None) -> None:
    """List the components of a deployment as a CycloneDX document.

    The engine's and the gateway's image, the patches, the weights by the lock or as they were pulled, and the
    Python packages of this tool. Digests are included if the lock or this host has them.

    \b
    Example:
      deckard-deploy sbom --profile spark > spark.cdx.json
    """
    click.echo(json.dumps(operations.sbom.bill_of_materials(choice, state_dir, TERMINAL), indent=2))
