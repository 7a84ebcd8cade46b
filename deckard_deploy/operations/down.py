"""`down`: stop a deployment, and remove it if asked."""

from deckard_deploy.catalog import library, listing
from deckard_deploy.operations.deployments import DeploymentRef, open_deployment, select_deployment
from deckard_deploy.operations.monitoring import stop_monitoring
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.operations.weights import remove_generated
from deckard_deploy.running.deploy import DeploymentContext, observe, take_down
from deckard_deploy.running.layout import StateDir
from deckard_deploy.running.lock import lock_deployment
from deckard_deploy.running.process import environment, locks
from deckard_deploy.system.files import remove_folder


def run(selection: Selection, report: Reporter, *, purge: bool = False, dry_run: bool = False) -> None:
    """Stop everything of the deployment.

    purge: remove its releases too, and with the last deployment all that was installed.
    Raises EnvironmentUnfitError, DeploymentBusyError.
    """
    deployment = select_deployment(selection)
    directory, name = deployment
    if dry_run:
        with open_deployment(directory, name, report) as context:
            report.say(f"would stop {name}, which is {observe(context.runtimes).state}")
        if purge:
            report.say(f"would remove releases and logs of {name}")
            if directory.deployments() == [name]:
                report.say("would remove engines, patches, caches and generated models")
        return
    stop(deployment, report, purge=purge)


def stop(deployment: DeploymentRef, report: Reporter, *, purge: bool) -> None:
    """Stop one deployment, and with `purge` remove it. Raises as `run`."""
    directory, name = deployment
    with (
        open_deployment(directory, name, report) as context,
        lock_deployment(directory.deployment(name), verb="down"),
    ):
        # Monitoring mounts folders of the deployment, and is on its network.
        if purge and stop_monitoring(deployment, report):
            report.say(f"nothing monitors {name} any more")
        stop_open(context, name, report)
        if purge:
            purge_folder(directory, name, report)


def stop_open(context: DeploymentContext, name: str, report: Reporter) -> None:
    """Stop what runs of a deployment whose lock the caller holds."""
    stopped = take_down(context)
    report.say(f"{name} is stopped" if stopped else f"{name} was not running")


def purge_folder(directory: StateDir, name: str, report: Reporter) -> None:
    """Remove the deployment, and with the last one the engines, caches and generated models."""
    remove_folder(directory.deployment(name).folder)
    report.say(f"removed  releases and logs of {name}")
    if directory.deployments():
        return
    shared = (directory.engines, directory.models)
    own = [folder for folder in shared if not folder.is_symlink()]
    if directory.engines in own:
        _remove_engines(directory, report)
    if directory.models in own:
        remove_generated(directory, report)
    for folder in (directory.cache, directory.root / "patches"):
        if folder.is_dir():
            remove_folder(folder)
    # Of models, only downloaded files are left.
    for folder in own:
        for lock in folder.glob(".*.lock"):
            lock.unlink(missing_ok=True)
    directory.startups.unlink(missing_ok=True)
    report.say("removed  engines, patches, caches and generated models")
    for folder in shared:
        if folder not in own:
            report.say(f"kept     what {folder} leads to: other state directories may use it")


def _remove_engines(directory: StateDir, report: Reporter) -> None:
    for name in listing.names("engines"):
        # Without a lock of ours the engine is an image, or an environment of the user's own.
        if library.engine(name).dependency_lock is not None:
            environment.remove(directory.engines / name, say=report.say)
    for name in locks.QUANTIZERS:
        environment.remove(directory.engines / name, say=report.say)
