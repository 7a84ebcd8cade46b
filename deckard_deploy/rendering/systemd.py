"""Render a systemd unit that keeps a deployment running, also after a reboot."""

from deckard_deploy import __version__
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.rendering.templates import environment


def unit_name(deployment: str) -> str:
    """Return the name of a deployment's unit, without `.service`."""
    return f"deckard-{deployment}"


def render_unit(
    plan: LaunchPlan, *, program: tuple[str, ...], variables: tuple[str, ...] = (), system: bool = False
) -> str:
    """Return the unit of a plan's deployment.

    program: deckard-deploy on that host, the first word an absolute path. variables: `NAME=VALUE` each. system: for the
    manager of the whole machine; default: for the manager of a user.
    """
    template = environment().get_template("unit.service.j2")
    return template.render(
        title=f"deckard-deploy: {plan.deployment}",
        name=unit_name(plan.deployment),
        version=__version__,
        watch=(*program, "watch", "--name", plan.deployment),
        environment=variables,
        system=system,
        docker=plan.runtime == "docker",
    )
