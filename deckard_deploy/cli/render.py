"""`render`: the files and lines of a plan, without starting anything."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from deckard_deploy.cli.options import deployment_options

if TYPE_CHECKING:
    from deckard_deploy.catalog.resolution import Resolved
    from deckard_deploy.planning.plan import LaunchPlan


@click.group()
def render() -> None:
    """Write the compose file or the command line of a plan.

    \b
    Example:
      deckard-deploy render compose --profile spark | docker compose -f - config -q
    """


def render_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every `render` verb takes."""
    output = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here instead of to stdout.")
    models = click.option(
        "--models-dir", metavar="PATH", help="Where the host keeps weights; default: /srv/deckard/models."
    )
    caches = click.option(
        "--cache-dir", metavar="PATH", help="Where the host keeps caches; default: /srv/deckard/cache."
    )
    return deployment_options(output(models(caches(command))))


@render.command()
@render_options
def compose(resolved: "Resolved", output: Path | None, models_dir: str | None, cache_dir: str | None) -> None:
    """Write compose.yaml.

    \b
    Example:
      deckard-deploy render compose --profile b200 --set max-num-seqs=8 -o compose.yaml
    """
    from deckard_deploy.rendering.compose import render_compose  # noqa: PLC0415  jinja2 is heavy

    plan = _plan(resolved, models_dir, cache_dir)
    _needs_image(plan)
    _write(render_compose(plan), output)


@render.command()
@render_options
def command(resolved: "Resolved", output: Path | None, models_dir: str | None, cache_dir: str | None) -> None:
    """Write the `vllm serve` line.

    \b
    Example:
      deckard-deploy render command --profile spark
    """
    from deckard_deploy.rendering.shell import render_command  # noqa: PLC0415  jinja2 is heavy

    _write(render_command(_plan(resolved, models_dir, cache_dir)), output)


@render.command(name="run")
@render_options
def run_line(resolved: "Resolved", output: Path | None, models_dir: str | None, cache_dir: str | None) -> None:
    """Write the `docker run` line.

    \b
    Example:
      deckard-deploy render run --profile spark
    """
    from deckard_deploy.rendering.shell import render_run  # noqa: PLC0415  jinja2 is heavy

    plan = _plan(resolved, models_dir, cache_dir)
    _needs_image(plan)
    _write(render_run(plan), output)


def _plan(resolved: "Resolved", models_dir: str | None, cache_dir: str | None) -> "LaunchPlan":
    from deckard_deploy.planning.planner import DEFAULT_PATHS, HostPaths, build_plan  # noqa: PLC0415  pydantic is heavy

    paths = HostPaths(
        models=_absolute(models_dir, "--models-dir") or DEFAULT_PATHS.models,
        caches=_absolute(cache_dir, "--cache-dir") or DEFAULT_PATHS.caches,
    )
    return build_plan(resolved, paths)


def _absolute(path: str | None, option: str) -> PurePosixPath | None:
    if path is None:
        return None
    if not path.startswith(("/", "~/")) or "\0" in path or "\n" in path:
        raise click.BadParameter(f"{path!r}: an absolute path was expected", param_hint=option)
    return PurePosixPath(path)


def _needs_image(plan: "LaunchPlan") -> None:
    from deckard_deploy.errors import BadInputError  # noqa: PLC0415  not for --help

    if plan.image is None:
        raise BadInputError(f"{plan.engine} runs without Docker", hint="deckard-deploy render command …")


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    from deckard_deploy.errors import BadInputError  # noqa: PLC0415  not for --help

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{output}: {error.strerror or error}") from error
