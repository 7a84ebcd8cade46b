"""`render`: the files and command lines of a plan. Nothing is started."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deckard_deploy.cli.options import Command, choice_options, locked_option
from deckard_deploy.cli.output import write_text
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.operations.options import Choice

if TYPE_CHECKING:
    from deckard_deploy.planning.plan import LaunchPlan


@click.group()
def render() -> None:
    """Write the compose file or the command line of a plan.

    \b
    Example:
      deckard-deploy render compose --profile spark | docker compose -f - config -q
    """


def plan_options(command: Command) -> Command:
    """Add the parameters `plan` and `output` to a `render` verb."""

    @functools.wraps(command)
    def with_plan(*, choice: Choice, root: str, models_dir: str | None, locked: bool, **more: Any) -> None:
        from deckard_deploy.operations.render import plan_for_folders

        plan = plan_for_folders(choice, root, models_dir, TERMINAL, locked=locked)
        command(plan=plan, **more)

    decorated: Command = with_plan
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return choice_options(decorated)


_OPTIONS = (
    click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here instead of to stdout."),
    click.option(
        "--root",
        metavar="PATH",
        default="/srv/deckard",
        show_default=True,
        help="Folder of models/, cache/ and patches/ on the host that will run it.",
    ),
    click.option(
        "--models-dir", metavar="PATH", help="Where that host keeps weights; default: models/ in --root."
    ),
    locked_option,
)


@render.command()
@plan_options
def compose(plan: "LaunchPlan", output: Path | None) -> None:
    """Write compose.yaml.

    \b
    Example:
      deckard-deploy render compose --profile b200 --set max-num-seqs=8 -o compose.yaml
    """
    from deckard_deploy.operations.render import compose_text

    write_text(compose_text(plan), output)


@render.command()
@plan_options
def gateway(plan: "LaunchPlan", output: Path | None) -> None:
    """Write nginx.conf of the gateway, which lies beside compose.yaml.

    \b
    Example:
      deckard-deploy render gateway --profile spark -o nginx.conf
    """
    from deckard_deploy.operations.render import gateway_text

    write_text(gateway_text(plan), output)


@render.command()
@plan_options
def command(plan: "LaunchPlan", output: Path | None) -> None:
    """Write the `vllm serve` line.

    \b
    Example:
      deckard-deploy render command --profile spark
    """
    from deckard_deploy.operations.render import command_text

    write_text(command_text(plan), output)


@render.command(name="run")
@plan_options
def run_line(plan: "LaunchPlan", output: Path | None) -> None:
    """Write the `docker run` line.

    \b
    Example:
      deckard-deploy render run --profile spark
    """
    from deckard_deploy.operations.render import run_text

    write_text(run_text(plan), output)


@render.command()
@plan_options
@click.option(
    "--program",
    metavar="PATH",
    default="/usr/local/bin/deckard-deploy",
    show_default=True,
    help="Where deckard-deploy is on the host that will have the unit.",
)
@click.option("--state-dir", metavar="PATH", envvar="DECKARD_HOME", help="As for `up`. [env: DECKARD_HOME]")
def systemd(plan: "LaunchPlan", output: Path | None, program: str, state_dir: str | None) -> None:
    """Write a systemd unit that keeps the deployment answering.

    It watches the current release of the deployment, so `up` comes first, once.

    \b
    Example:
      deckard-deploy render systemd --profile spark -o ~/.config/systemd/user/deckard-spark.service
    """
    from deckard_deploy.operations.render import unit_text

    write_text(unit_text(plan, program=program, state_dir=state_dir), output)


@render.command()
@plan_options
def k8s(plan: "LaunchPlan", output: Path | None) -> None:
    """Write a Deployment, a Service, a NetworkPolicy and a ConfigMap.

    \b
    Example:
      deckard-deploy render k8s --profile h200 | kubectl apply -f -
    """
    from deckard_deploy.operations.render import kubernetes_text

    write_text(kubernetes_text(plan), output)
