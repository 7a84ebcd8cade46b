"""`keys`: change the keys of clients, and reload the running gateways."""

from contextlib import suppress
from pathlib import Path

from deckard_deploy.errors import DeployError, EnvironmentUnfitError
from deckard_deploy.operations.deployments import open_deployment
from deckard_deploy.operations.gateway import GET_NGINX, reload_gateway_keys
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.deploy import observe
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.running.layout import StateDir, state_directory


def add_key(state_dir: Path | None, name: str, report: Reporter, *, force: bool = False) -> tuple[str, bool]:
    """Create a key. Return it, and True if it is the first one of this host. Only its hash is stored.

    Running gateways accept it after `tell_gateways`. force: also while a deployment runs that no key protects.
    Raises BadInputError (the name is taken), EnvironmentUnfitError (such a deployment runs).
    """
    directory = state_directory(state_dir)
    keys = Keys(directory.root)
    keys.require_unused_name(name)
    unprotected = running_without_gateway(directory, report)
    if unprotected and not force:
        raise EnvironmentUnfitError(
            f"{', '.join(unprotected)} runs without a gateway: every program of this machine gets in, "
            "with a key or without",
            hint=f"{GET_NGINX}; or, for other deployments: --force",
        )
    with keys.lock():
        first = not keys.ring().closed
        return keys.add(name), first


def running_without_gateway(directory: StateDir, report: Reporter) -> list[str]:
    """Return the names of the running deployments that no key protects.

    A deployment whose runtime does not answer is left out: `tell_gateways` reports it.
    """
    found = []
    for name in directory.deployments():
        with suppress(DeployError), open_deployment(directory, name, report) as context:
            seen = observe(context.runtimes)
            release = context.releases.get(seen.plan_hash) if seen.plan_hash else None
            if release and seen.state in ("running", "restarting") and release.load().plan.gateway is None:
                found.append(name)
    return found


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
    """Make every running gateway of this host read its keys again, and name the deployments without one.

    An error of one does not keep the others from it, and is raised in the end.
    """
    directory = state_directory(state_dir)
    for name in running_without_gateway(directory, report):
        report.say(f"{name} has no gateway: it still serves every program of this machine, without a key")
    failed: DeployError | None = None
    for name in directory.deployments():
        try:
            with open_deployment(directory, name, report) as context:
                if reload_gateway_keys(context, directory):
                    report.say(f"gateway  of {name} uses the new keys")
        except DeployError as error:
            report.say(f"gateway  of {name} may still use the old keys: {error.message}")
            failed = error
    if failed:
        raise failed
