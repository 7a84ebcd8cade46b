"""`verify`: are the weights on this host still what was published?"""

import json
from pathlib import Path

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli import weights
from deckard_deploy.cli.options import deployment_options
from deckard_deploy.cli.output import say
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.weights import lockfile
from deckard_deploy.weights.folder import ModelFolder, Problem
from deckard_deploy.weights.manifest import Manifest, bytes_of
from deckard_deploy.weights.strict_json import printable

_STRAY = "not in the repository, and an engine might load it"


@click.command()
@deployment_options
@state_option
@click.option(
    "--lock-file", type=click.Path(path_type=Path), help="Default: ./deckard.lock, if there is one."
)
@click.option("--locked", is_flag=True, help="Refuse what is not in the lock.")
@click.option(
    "--fast", is_flag=True, help="Compare size, times and inode with the last full check; read no content."
)
@click.option("--repair", is_flag=True, help="Set aside what is wrong, and fetch it once again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(  # noqa: PLR0913  click hands over every option by name
    *,
    resolved: "Resolved",
    state_dir: Path | None,
    lock_file: Path | None,
    locked: bool,
    fast: bool,
    repair: bool,
    as_json: bool,
) -> None:
    """Hash a deployment's weights and name every file that is wrong.

    The exit code is 4 when one is.

    \b
    Example:
      deckard-deploy verify --profile spark
    """
    found: dict[str, list[Problem]] = {}
    for model in weights.hub_models(resolved):
        place = ModelFolder(state(state_dir).models / model.name)
        lock = lock_file or lockfile.DEFAULT
        manifest = weights.manifest_for(model, place.folder, lock_file=lock, locked=locked)
        found[model.name] = _problems(model.name, place, manifest, fast=fast)
        if repair and found[model.name]:
            _set_strays_aside(place, manifest)
            weights.have(model, place.folder, lock_file=lock, locked=locked)
            found[model.name] = _problems(model.name, place, manifest, fast=True)
    _show(found, as_json=as_json)
    if any(found.values()):
        click.get_current_context().exit(4)


def _problems(name: str, place: "ModelFolder", manifest: "Manifest", *, fast: bool) -> "list[Problem]":

    unexpected = [Problem(printable(stray), _STRAY) for stray in place.unexpected(manifest)]
    if fast:
        cause = "not as it was when it was hashed"
        return [Problem(file.path, cause) for file in place.changed(manifest.needed)] + unexpected
    display, total = weights.Display(name), bytes_of(manifest.needed)
    problems = place.check(list(manifest.needed), lambda done: display.show(done, total))
    display.end()
    return problems + unexpected


def _set_strays_aside(place: "ModelFolder", manifest: "Manifest") -> None:
    """Raises DeploymentBusyError, EnvironmentUnfitError."""
    strays = place.unexpected(manifest)
    if strays:
        with place.held():
            for stray in strays:
                say(f"weights  {printable(stray)}: {_STRAY}; now {printable(str(place.quarantine(stray)))}")


def _show(found: "dict[str, list[Problem]]", *, as_json: bool) -> None:
    if as_json:
        rows = {
            name: [{"path": one.path, "cause": one.cause} for one in problems]
            for name, problems in found.items()
        }
        click.echo(json.dumps({"models": rows, "right": not any(found.values())}, indent=2))
        return
    for name, problems in found.items():
        for problem in problems:
            click.echo(f"{name}/{problem.path}: {problem.cause}")
        say(
            f"weights  {name}: {'right' if not problems else 'wrong, to repair: the same command with --repair'}"
        )
    if not found:
        say("weights  nothing was pulled for this deployment: this tool writes its model itself")
