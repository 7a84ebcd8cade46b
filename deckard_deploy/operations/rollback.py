"""`rollback`: bring the previous release back."""

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.deployments import open_deployment, select_deployment
from deckard_deploy.operations.engine import ensure_engine, require_mounted_files
from deckard_deploy.operations.gateway import refuse_unfit_gateway, report_exposure
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.difference import difference
from deckard_deploy.running.deploy import deploy, relaunch
from deckard_deploy.running.lock import lock_deployment


def run(selection: Selection, report: Reporter, *, dry_run: bool = False) -> str | None:
    """Start and prove the previous release. Return its base URL; None with `dry_run`.

    It is started from its own files, which an earlier version of this tool may have written. What runs is
    stopped only when all that the release needs is here. Raises BadInputError without a previous release, and
    the errors of `require_mounted_files`, `ensure_engine` and `deploy`.
    """
    deployment = select_deployment(selection)
    directory, name = deployment
    with open_deployment(directory, name, report) as context:
        current = context.releases.current()
        previous = context.releases.previous()
        if current is None or previous is None:
            raise BadInputError(
                f"{name} has no release before the current one", hint=f"deckard-deploy status --name {name}"
            )
        word = "would" if dry_run else "rollback"
        report.say(f"{word:8} {current.plan_hash} -> {previous.plan_hash}")
        plan = previous.load().plan
        for change in difference(current.load().plan, plan):
            report.say(f"           {change}")
        require_mounted_files(plan)
        launch = relaunch(previous)
        if dry_run:
            return None
        with lock_deployment(directory.deployment(name), verb="rollback"):
            context.releases.clear_leftovers()
            refuse_unfit_gateway(plan, directory)
            ensure_engine(plan, directory, context.runtimes[plan.runtime], report)
            deploy(context, previous, launch)
    report_exposure(plan, directory, report)
    return plan.base_url
