"""The report on damage that a plain completion does not show. It ends no start: an engine that answers stays."""

from deckard_deploy.operations.gateway import credentials
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.layout import StateDir
from deckard_deploy.startup.damage import AT_ONCE, Endpoint, find_damage


def report_damage(plan: LaunchPlan, directory: StateDir, report: Reporter) -> list[str]:
    """Ask the questions of startup/damage.py, report what was wrong, and return it."""
    calls_tools = "--enable-auto-tool-choice" in plan.arguments
    found = find_damage(Endpoint(plan.base_url, plan.served_name, credentials(plan, directory), calls_tools))
    for line in found:
        report.say(f"damage   {line}")
    if not found:
        call = ", a tool call" if calls_tools else ""
        report.say(
            f"canaries {1 + AT_ONCE} texts without a broken character{call} and a JSON document: as asked"
        )
    return found
