"""`keys`: change the keys of clients, and reload the running gateways."""

from pathlib import Path

from deckard_deploy.errors import DeployError
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.gateway import reload_gateway_keys
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import state_directory


def add_key(state_dir: Path | None, name: str) -> tuple[str, bool]:
    """Create a key. Return it, and True if it is the first one of this host. Only its hash is stored.

    Running gateways accept it after `tell_gateways`. Raises BadInputError (the name is taken),
    EnvironmentUnfitError.
    """
    keys = Keys(state_directory(state_dir).root)
    keys.require_unused_name(name)
    with keys.lock():
        first = not keys.ring().closed
        return keys.add(name), first


def list_keys(state_dir: Path | None) -> list[tuple[str, str]]:
    """Return the names of the keys, sorted, each with its time of creation."""
    return sorted(
        (name, record.made) for name, record in Keys(state_directory(state_dir).root).ring().keys.items()
    )


def access_file(state_dir: Path | None) -> str:
    """Return the file that a gateway reads: the hashes of the keys, including this tool's own."""
    return Keys(state_directory(state_dir).root).access()


def revoke_key(state_dir: Path | None, name: str, report: Reporter) -> bool:
    """Revoke a key, and reload the running gateways.

    Return True if another key is left. Raises BadInputError.
    """
    directory = state_directory(state_dir)
    keys = Keys(directory.root)
    if name not in keys.ring().keys and directory.deployments():
        report.say(
            f"no key is named {name!r}; if a revocation of it was interrupted, gateways may not know: "
            "they are told"
        )
        tell_gateways(state_dir, report)
    keys.require_known_name(name)
    with keys.lock():
        keys.revoke(name)
        left = keys.ring().keys
    tell_gateways(state_dir, report)
    return bool(left)


def tell_gateways(state_dir: Path | None, report: Reporter) -> None:
    """Make every running gateway of this host read its keys again.

    An error of one does not keep the others from it, and is raised in the end.
    """
    directory = state_directory(state_dir)
    failed: DeployError | None = None
    for name in directory.deployments():
        try:
            with open_deployment(directory, name, report) as context:
                if reload_gateway_keys(context, directory):
                    report.say(f"gateway  of {name} goes by the new keys")
        except DeployError as error:
            report.say(f"gateway  of {name} may still go by the old keys: {error.message}")
            failed = error
    if failed:
        raise failed
