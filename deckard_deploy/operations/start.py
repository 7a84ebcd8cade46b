"""`start`: start the current release again, which `down` stopped."""

from deckard_deploy.errors import BadInputError
from deckard_deploy.operations.deployments import open_deployment, select_deployment, up_command
from deckard_deploy.operations.engine import ensure_engine, require_mounted_files
from deckard_deploy.operations.gateway import refuse_unfit_gateway, report_exposure
from deckard_deploy.operations.options import Selection
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.running.deploy import deploy, observe, relaunch
from deckard_deploy.running.lock import lock_deployment


def run(selection: Selection, report: Reporter, *, dry_run: bool = False) -> str | None:
    """Start and prove the current release, with its own plan and files. Return its base URL; None with `dry_run`.

    A deployment that is running is left alone. Raises BadInputError when it was never ready, and the errors of
    `require_mounted_files`, `ensure_engine` and `deploy`.
    """
    deployment = select_deployment(selection)
    directory, name = deployment
    with open_deployment(directory, name, report) as context:
        current = context.releases.current()
        if current is None:
            raise BadInputError(f"{name} was never ready", hint=up_command(deployment))
        plan = current.load().plan
        seen = observe(context.runtimes)
        if seen.state not in ("missing", "exited"):
            report.say(f"running  plan {seen.plan_hash or 'unknown'}: nothing to do")
            return None if dry_run else plan.base_url
        require_mounted_files(plan)
        if dry_run:
            report.say(f"dry run: would start plan {plan.hash}")
            return None
        report.say(f"start    plan {plan.hash}")
        with lock_deployment(directory.deployment(name), verb="start"):
            context.releases.clear_leftovers()
            refuse_unfit_gateway(plan, directory)
            ensure_engine(plan, directory, context.runtimes[plan.runtime], report)
            deploy(context, current, relaunch(current))
    report_exposure(plan, directory, report)
    return plan.base_url
