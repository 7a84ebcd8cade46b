"""`pull`: bring a deployment's weights, and know that they are right."""

from pathlib import Path

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli import weights
from deckard_deploy.cli.options import deployment_options
from deckard_deploy.cli.output import say
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.folder import ModelFolder
from deckard_deploy.weights.manifest import bytes_of


@click.command()
@deployment_options
@state_option
@click.option(
    "--lock-file", type=click.Path(path_type=Path), help="Default: ./deckard.lock, if there is one."
)
@click.option("--locked", is_flag=True, help="Refuse what is not in the lock.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and fetch nothing.")
def pull(  # click hands over every option by name
    *, resolved: "Resolved", state_dir: Path | None, lock_file: Path | None, locked: bool, dry_run: bool
) -> None:
    """Fetch a deployment's weights, resuming and checking every byte.

    Each model's folder is printed on stdout. What is there already, whole or in part, is not fetched again.

    \b
    Example:
      deckard-deploy pull --profile spark
    """
    models = weights.hub_models(resolved)
    if not models:
        say(f"weights  {resolved.model.name} is written by this tool: nothing to fetch")
    for model in models:
        folder = state(state_dir).models / model.name
        lock = lock_file or lockfile.DEFAULT
        if dry_run:
            manifest = weights.manifest_for(model, folder, lock_file=lock, locked=locked)
            missing = ModelFolder(folder).changed(manifest.needed)
            say(f"would    check or fetch {len(missing)} files, {bytes_of(missing):,} bytes, of {model.name}")
        else:
            missing_bytes = weights.have(model, folder, lock_file=lock, locked=locked)
            say(
                f"weights  {model.name} is complete and right; files of {missing_bytes:,} bytes were not there yet"
            )
        click.echo(folder)
