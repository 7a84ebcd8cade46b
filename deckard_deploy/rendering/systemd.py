"""Render a systemd unit that keeps a deployment running, also after a reboot."""

from deckard_deploy import __version__
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.templates import environment

_DOWN_MARGIN_S = 90  # for `down` itself, after the engine's grace period


def render_unit(plan: LaunchPlan, *, program: str, state_dir: str | None = None) -> str:
    """Return the unit of a plan's deployment. program: absolute path of deckard-deploy on that host."""
    name = ("--name", plan.deployment)
    template = environment().get_template("unit.service.j2")
    return template.render(
        title=f"deckard-deploy: {plan.deployment}",
        name=f"deckard-{plan.deployment}",
        version=__version__,
        watch=(program, "watch", *name),
        down=(program, "down", *name),
        environment=(f"DECKARD_HOME={state_dir}",) if state_dir else (),
        stop_s=plan.container.stop_grace_period_s + _DOWN_MARGIN_S,
    )
