"""`render`: the files and command lines of a plan. Nothing is started."""

import functools
from pathlib import Path
from typing import Any

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import Command, choice_options, compat_option, locked_option
from deckard_deploy.cli.output import say, write_text
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.options import Choice


@click.group(invoke_without_command=True)
@click.option(
    "--check",
    "checked",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Name the files of a folder of `render all` that drifted; exit code 4 if there are any.",
)
@click.pass_context
def render(context: click.Context, checked: Path | None) -> None:
    """Write the compose file or the command line of a plan.

    \b
    Example:
      deckard-deploy render compose --profile spark | docker compose -f - config -q
    """
    if context.invoked_subcommand:
        if checked:
            raise BadInputError("--check reads a folder, and cannot be combined with a command of render")
        return
    if checked is None:
        raise click.exceptions.NoArgsIsHelpError(context)
    lines = list(operations.render_folder.drift(checked, TERMINAL))
    for line in lines:
        click.echo(line)
    if lines:
        raise IntegrityError(
            f"{checked}: {len(lines)} files drifted", hint="deckard-deploy render all, with the same options"
        )
    say(f"{checked}: no file drifted")


@render.command(name="all")
@choice_options
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder, which is made.",
)
@click.option(
    "--models-dir", metavar="PATH", help="Where that machine keeps weights; default: models/ in DIR."
)
@click.option("--wheel", metavar="FILE|URL", help="Build the patched files from this wheel of the release.")
@locked_option
def everything(
    *, choice: Choice, output: Path, models_dir: str | None, wheel: str | None, locked: bool
) -> None:
    """Write a folder for git that docker compose runs on a machine without deckard-deploy.

    \b
    Example:
      deckard-deploy render all --profile spark -o deploy/spark
    """
    plan = operations.render_folder.write_folder(
        choice, output, TERMINAL, models_dir=models_dir, wheel=wheel, locked=locked
    )
    say(f"wrote    {output}: plan {plan.hash}; its README.md says how to run it")


def plan_options(command: Command) -> Command:
    """Add the parameters `files` and `output` to a `render` verb."""

    @functools.wraps(command)
    def with_plan(*, choice: Choice, root: str, models_dir: str | None, locked: bool, **more: Any) -> None:

        files = operations.render.plan_files(choice, root, models_dir, TERMINAL, locked=locked)
        command(files=files, **more)

    decorated: Command = with_plan
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return compat_option(choice_options(decorated))


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
def compose(files: "operations.render.PlanFiles", output: Path | None) -> None:
    """Write compose.yaml.

    \b
    Example:
      deckard-deploy render compose --profile b200 --set max-num-seqs=8 -o compose.yaml
    """
    write_text(files.compose(), output)


@render.command()
@plan_options
def gateway(files: "operations.render.PlanFiles", output: Path | None) -> None:
    """Write nginx.conf of the gateway.

    \b
    Example:
      deckard-deploy render gateway --profile spark -o nginx.conf
    """
    write_text(files.gateway(), output)


@render.command()
@plan_options
def command(files: "operations.render.PlanFiles", output: Path | None) -> None:
    """Write the `vllm serve` line.

    \b
    Example:
      deckard-deploy render command --profile spark
    """
    write_text(files.command(), output)


@render.command(name="run")
@plan_options
def run_line(files: "operations.render.PlanFiles", output: Path | None) -> None:
    """Write the `docker run` line.

    \b
    Example:
      deckard-deploy render run --profile spark
    """
    write_text(files.run(), output)


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
def systemd(
    files: "operations.render.PlanFiles", output: Path | None, program: str, state_dir: str | None
) -> None:
    """Write a systemd unit that keeps the deployment answering.

    It watches the current release of the deployment, so `up` comes first, once.

    \b
    Example:
      deckard-deploy render systemd --profile spark -o ~/.config/systemd/user/deckard-spark.service
    """
    write_text(files.unit(program=program, state_dir=state_dir), output)


@render.command()
@plan_options
@click.option(
    "--claim", metavar="NAME", help="PersistentVolumeClaim that holds --root; default: the deployment's name."
)
@click.option(
    "--admit",
    "admitted",
    metavar="NAMESPACE",
    multiple=True,
    help="Let in pods of this namespace, as of an ingress controller or Prometheus; may be repeated.",
)
@click.option(
    "--gpu-product",
    "gpu_products",
    metavar="NAME",
    multiple=True,
    help="Only nodes with this label nvidia.com/gpu.product; may be repeated.",
)
@click.option("--runtime-class", metavar="NAME", help="RuntimeClass of the pod, such as nvidia.")
@click.option("--cpu", metavar="QUANTITY", help="Request of CPUs for the engine, such as 8.")
@click.option(
    "--memory", metavar="QUANTITY", help="Request and limit of memory for the engine, with /dev/shm."
)
@click.option("--pull-secret", metavar="NAME", help="Secret of the registry.")
def k8s(files: "operations.render.PlanFiles", output: Path | None, **cluster: Any) -> None:
    """Write a Deployment, a Service, a NetworkPolicy and a ConfigMap.

    Weights, patched files and caches are in a PersistentVolumeClaim.

    \b
    Example:
      deckard-deploy render k8s --profile h200 | kubectl apply -f -
    """
    write_text(files.kubernetes(files.cluster(**cluster)), output)
