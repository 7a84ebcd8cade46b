"""LaunchPlan -> a systemd unit that keeps its deployment answering, also after a reboot."""

from deckard_deploy import __version__
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.templates import environment

_SLACK_S = 90  # of `down` around the server's own grace


def render_unit(plan: LaunchPlan, *, program: str, state_dir: str | None = None) -> str:
    """The unit of a plan's deployment. `program`: absolute path of deckard-deploy on the host that has the unit."""
    name = ("--name", plan.deployment)
    return (
        environment()
        .get_template("unit.service.j2")
        .render(
            title=f"deckard-deploy: {plan.deployment}",
            name=f"deckard-{plan.deployment}",
            version=__version__,
            watch=(program, "watch", *name),
            down=(program, "down", *name),
            environment=(f"DECKARD_HOME={state_dir}",) if state_dir else (),
            stop_s=plan.container.stop_grace_period_s + _SLACK_S,
        )
    )
