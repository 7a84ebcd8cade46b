"""`render`: the files and lines of a plan, without starting anything."""

import functools
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import click

from deckard_deploy.catalog.resolution import Resolved
from deckard_deploy.cli.options import deployment_options
from deckard_deploy.cli.patch_choice import patched
from deckard_deploy.cli.pinned import locked_option, pinned, refuse_unlocked
from deckard_deploy.errors import BadInputError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.planning.planner import HostPaths, build_plan
from deckard_deploy.rendering.compose import render_compose
from deckard_deploy.rendering.gateway import render_gateway
from deckard_deploy.rendering.kubernetes import render_kubernetes
from deckard_deploy.rendering.shell import render_command, render_run
from deckard_deploy.rendering.systemd import render_unit


@click.group()
def render() -> None:
    """Write the compose file or the command line of a plan.

    \b
    Example:
      deckard-deploy render compose --profile spark | docker compose -f - config -q
    """


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a `render` verb `plan` and `output`."""

    @functools.wraps(command)
    def with_plan(
        *, resolved: "Resolved", root: str, models_dir: str | None, locked: bool, **more: Path | str | None
    ) -> None:
        plan = _plan(resolved, root, models_dir)
        if locked:
            refuse_unlocked(resolved, plan)
        command(plan=plan, **more)

    for option in reversed(_OPTIONS):
        with_plan = option(with_plan)
    return deployment_options(with_plan)


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
    _needs_image(plan)
    _write(render_compose(plan), output)


@render.command()
@plan_options
def gateway(plan: "LaunchPlan", output: Path | None) -> None:
    """Write nginx.conf of the gateway, which lies beside compose.yaml.

    \b
    Example:
      deckard-deploy render gateway --profile spark -o nginx.conf
    """
    if plan.gateway is None:
        raise BadInputError(
            f"the plan of {plan.deployment} has no gateway", hint="deckard-deploy render compose …"
        )
    _write(render_gateway(plan), output)


@render.command()
@plan_options
def command(plan: "LaunchPlan", output: Path | None) -> None:
    """Write the `vllm serve` line.

    \b
    Example:
      deckard-deploy render command --profile spark
    """
    _write(render_command(plan), output)


@render.command(name="run")
@plan_options
def run_line(plan: "LaunchPlan", output: Path | None) -> None:
    """Write the `docker run` line.

    \b
    Example:
      deckard-deploy render run --profile spark
    """
    _needs_image(plan)
    if plan.gateway and (plan.gateway.exposed or plan.gateway.tls):
        asked = "--expose" if plan.gateway.exposed else "TLS"
        raise BadInputError(
            f"{asked} needs the gateway, a second container", hint="deckard-deploy render compose …"
        )
    _write(render_run(plan), output)


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
    # Systemd takes no others there, however they are quoted.
    if not re.fullmatch(r"/[A-Za-z0-9._/+-]+", program):
        raise click.BadParameter(
            f"{program!r}: a path of letters, digits and . _ / + -", param_hint="--program"
        )
    home = str(_absolute(state_dir, "--state-dir", home=False)) if state_dir else None
    _write(render_unit(plan, program=program, state_dir=home), output)


@render.command()
@plan_options
def k8s(plan: "LaunchPlan", output: Path | None) -> None:
    """Write a Deployment, a Service, a NetworkPolicy and a ConfigMap.

    \b
    Example:
      deckard-deploy render k8s --profile h200 | kubectl apply -f -
    """
    _needs_image(plan)
    try:
        text = render_kubernetes(plan)
    except ValueError as error:
        raise BadInputError(
            str(error), hint="render compose, or leave network, ipc, CUDA_VISIBLE_DEVICES and --compat"
        ) from error
    if any(mount.source.startswith("~/") for mount in plan.all_mounts):
        raise BadInputError(
            "Kubernetes does not know whose ~/ is meant", hint="--root and --models-dir with a whole path"
        )
    _write(text, output)


def _plan(resolved: "Resolved", root: str, models_dir: str | None) -> "LaunchPlan":

    # Compose and the shell expand ~/ in a mount; of a process it would stand in JSON and in variables.
    home = resolved.engine.runtime == "docker"
    folder = _absolute(root, "--root", home=home)
    models = _absolute(models_dir, "--models-dir", home=home) if models_dir else folder / "models"
    paths = HostPaths(
        models=models, caches=folder / "cache", patches=folder / "patches", deployments=folder / "deployments"
    )
    return pinned(patched(build_plan(resolved, paths), resolved, paths.patches))


def _absolute(path: str, option: str, *, home: bool) -> PurePosixPath:
    """A path of another host. home: whoever reads it there knows what ~/ is."""
    if not path.startswith(("/", "~/") if home else "/") or not path.isprintable():
        raise click.BadParameter(f"{path!r}: an absolute path was expected", param_hint=option)
    return PurePosixPath(path)


def _needs_image(plan: "LaunchPlan") -> None:

    if plan.image is None:
        raise BadInputError(f"{plan.engine} runs without Docker", hint="deckard-deploy render command …")


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{output}: {error.strerror or error}") from error
