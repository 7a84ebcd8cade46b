"""`lock`: write down, for review and for git, exactly what a deployment consists of."""

import os
from pathlib import Path

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.catalog.specs import HubRepository
from deckard_deploy.cli.options import deployment_options
from deckard_deploy.cli.output import echo_command, say
from deckard_deploy.cli.weights import hub_models
from deckard_deploy.errors import EnvironmentUnfitError, NetworkError
from deckard_deploy.patching import plugin
from deckard_deploy.patching.manifest import load_patch_set
from deckard_deploy.planning.planner import build_plan
from deckard_deploy.running.docker import images as docker_images
from deckard_deploy.running.docker import registry
from deckard_deploy.running.docker.client import DockerEngine
from deckard_deploy.weights import hub, lockfile
from deckard_deploy.weights.lockfile import Lock


@click.command()
@deployment_options
@click.option("--lock-file", type=click.Path(path_type=Path), help="Default: ./deckard.lock.")
@click.option("--check", is_flag=True, help="Write nothing; say what moved, and exit 4 if something did.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would change.")
def lock(*, resolved: "Resolved", lock_file: Path | None, check: bool, dry_run: bool) -> None:
    """Resolve models to commits and hashes, images to digests, patches and plugins to hashes.

    Entries of other deployments in the same file stay as they are.

    \b
    Example:
      deckard-deploy lock --profile spark
    """
    path = lock_file or lockfile.DEFAULT
    old = lockfile.read(path) or lockfile.Lock()
    new = _resolved(resolved)
    moved = list(lockfile.differences(old, new))
    for line in moved:
        click.echo(line)
    if check:
        say(f"lock     {path}: {f'{len(moved)} things moved' if moved else 'nothing moved'}")
        if moved:
            click.get_current_context().exit(4)
    elif not dry_run:
        lockfile.write(path, old.updated(new))
        say(f"lock     {path}: {len(moved)} changes written; review it and commit it")


def _resolved(resolved: "Resolved") -> "Lock":

    models = {}
    for model in hub_models(resolved):
        if isinstance(model.weights, HubRepository):
            models[model.name] = hub.resolve(model.weights.repo, model.weights.revision)
    name, plugged = resolved.engine.patch_set, resolved.engine.plugin
    return Lock(
        models=models,
        images={image: digest for image in build_plan(resolved).images if (digest := _digest(image))},
        patches={name: {one.name: one.patched_sha256 for one in load_patch_set(name).patches}}
        if name
        else {},
        plugins={plugged: plugin.sha256_of(plugged)} if plugged else {},
    )


def _digest(image: str) -> str | None:
    """The image's digest, from its reference, or from its registry through docker; None where neither says."""
    return image.partition("@")[2] or _registry_digest(image)


def _registry_digest(image: str) -> str | None:
    """The digest that the tag has in its registry now; where nobody can say, the one it was pulled with."""
    engine = DockerEngine(environment=dict(os.environ), say=echo_command)
    try:
        return registry.digest_of(engine, image)
    except EnvironmentUnfitError as error:
        say(f"lock     {image}: no digest: {error.message}; try: {error.hint}")
        return None
    except NetworkError as error:
        local = next(iter(docker_images.digests(engine, image)), None)
        say(
            f"lock     {error.message}; {f'locked as it was pulled: {local}' if local else f'no digest; {error.hint}'}"
        )
        return local
