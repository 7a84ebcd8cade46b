"""`patches`: the changes to vLLM, their fit to an engine, and the changed files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deckard_deploy import operations
from deckard_deploy.cli import screens
from deckard_deploy.cli.names import catalog_names
from deckard_deploy.cli.options import Command, json_option
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.reporter import TERMINAL
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.operations.options import Choice

if TYPE_CHECKING:
    from deckard_deploy.catalog.specs import LmHead

_DEFAULT_SET = "vllm-0.19.1"
_QUANTIZATIONS = ("none", "nvfp4", "nvfp4_awq", "nvfp4_svd")


@click.group()
def patches() -> None:
    """List, check and build the vLLM patches.

    \b
    Example:
      deckard-deploy patches check --image vllm/vllm-openai:v0.19.1-cu130
    """


def set_option(command: Command) -> Command:
    """Add the parameter `set_name` to a verb."""
    option = click.option("--set", "set_name", default=_DEFAULT_SET, show_default=True, help="Patch set.")
    return option(command)


_SOURCE_OPTIONS = (
    click.option("--image", help="Read vLLM's files out of this local image."),
    click.option(
        "--package", metavar="DIR", help="Folder of an installed vllm package, or inside the image."
    ),
    click.option("--wheel", metavar="FILE|URL", help="Read vLLM's files out of a wheel of the release."),
    click.option(
        "--drafter/--no-drafter", default=True, help="With a draft model or without; default: with."
    ),
    click.option(
        "--quantization",
        type=click.Choice(_QUANTIZATIONS),
        default="nvfp4_awq",
        help="Quantization of the checkpoint.",
    ),
)


def source_options(command: Command) -> Command:
    """Add the parameters of the engine's own files, and of the plan that the patches are for, to a verb."""
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


@patches.command("list")
@click.option("-p", "--profile", help="Mark the patches that the plan of this profile needs.")
@click.option("--model", help="The plan's model; default: the profile's.")
@click.option("--drafter", help="The plan's draft model.")
@json_option
def list_patches(*, profile: str | None, model: str | None, drafter: str | None, as_json: bool) -> None:
    """List the patches, their reasons and uses.

    \b
    Example:
      deckard-deploy patches list --profile spark --drafter deckard-e4b
    """
    patch_set = operations.patch_check.find_patch_set(_DEFAULT_SET)
    needed = None
    if profile:
        named = (("model", model), ("drafter", drafter))
        settings = tuple(f"{key}={json.dumps(value)}" for key, value in named if value)
        needed = operations.patch_check.needed_by(
            Choice(profile=profile, settings=settings), patch_set, TERMINAL
        )
    if as_json:
        listed = json.loads(patch_set.model_dump_json())
        for entry in listed["patches"]:
            entry["needed"] = None if needed is None else entry["name"] in needed
        click.echo(json.dumps(listed, indent=2))
        return
    for patch in patch_set.patches:
        is_needed = None if needed is None else patch.name in needed
        screens.patches.print_patch(patch, needed=is_needed, profile=profile)


@patches.command()
@click.argument("names", nargs=-1)
@set_option
def diff(names: tuple[str, ...], set_name: str) -> None:
    """Print patches as unified diffs.

    \b
    Example:
      deckard-deploy patches diff modelopt | less
    """
    patch_set = operations.patch_check.find_patch_set(set_name)
    for patch in operations.patch_check.named_patches(patch_set, names):
        click.echo(patch_set.diff_file(patch).read_text(encoding="utf-8"), nl=False)


@patches.command()
@click.option(
    "-p",
    "--profile",
    shell_complete=catalog_names("profiles"),
    help="Check what the plan of this profile needs, against the release of its engine.",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help="Check what the plan of this deckard.yaml needs, against the release of its engine.",
)
@click.option(
    "--release", metavar="VERSION", help="Check all patches against the wheel of this vLLM release."
)
@set_option
@source_options
@json_option
def check(
    *,
    release: str | None,
    set_name: str,
    drafter: bool,
    quantization: str,
    as_json: bool,
    **more: Any,
) -> None:
    """Check that the patches fit an engine's files.

    The exit code is 4 when one does not.

    \b
    Example:
      deckard-deploy patches check --image vllm/vllm-openai:v0.19.1-cu130 --no-drafter
    """
    profile, config = more.pop("profile"), more.pop("config")
    patch_set = operations.patch_check.find_patch_set(set_name)
    if (release is not None or profile or config) and any(more.values()):
        raise BadInputError(
            "--release, --profile and --config cannot be combined with --image, --package or --wheel"
        )
    if profile or config:
        choice = Choice(profile=profile, config=config, detect=True)
        origin, verdicts = operations.patch_check.check_needed(choice, TERMINAL)
    elif release is not None:
        origin, verdicts = operations.patch_check.check_wheel_of(patch_set, release, TERMINAL)
    else:
        variant = operations.patch_check.Variant(drafter, quantization)
        origin, verdicts = operations.patch_check.check_source(patch_set, more, variant, TERMINAL)
    say(f"patches  against {origin}")
    if as_json:
        click.echo(json.dumps([screens.patches.verdict_json(verdict) for verdict in verdicts], indent=2))
    else:
        table(screens.patches.verdict_rows(verdicts))
    unfit = [verdict.name for verdict in verdicts if not verdict.fits]
    if unfit:
        raise IntegrityError(
            f"{origin}: {', '.join(unfit)} would not fit",
            hint="an engine whose release they fit: deckard-deploy engines",
        )


@patches.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the patched files."
)
@click.option("--overlay", "as_overlay", is_flag=True, help="Also link the rest of --package around them.")
@click.option(
    "--import-with",
    metavar="PYTHON",
    type=click.Path(path_type=Path),
    help="Python that imports the patched modules, as a check.",
)
@set_option
@source_options
@json_option
def build(  # noqa: PLR0913  one parameter per option
    *,
    output: Path,
    as_overlay: bool,
    import_with: Path | None,
    set_name: str,
    drafter: bool,
    quantization: str,
    as_json: bool,
    **source: str | None,
) -> None:
    """Write the patched files.

    The exit code is 4 when a base file is not the release's.

    \b
    Example:
      deckard-deploy patches build --package .venv/lib/python3.12/site-packages/vllm --overlay -o patched
    """
    package = source["package"]
    if (as_overlay or import_with) and (source["image"] or not package):
        raise BadInputError("--overlay and --import-with need an installed vLLM", hint="--package DIR")
    variant = operations.patch_check.Variant(drafter, quantization)
    patch_set = operations.patch_check.find_patch_set(set_name)
    built = operations.patch_check.build_files(patch_set, source, variant, output, TERMINAL)
    if package and (as_overlay or import_with):
        folder = operations.patch_check.build_overlay(built, Path(package), output)
        if import_with:
            operations.patch_check.import_files(built, import_with, folder)
    rows = [(patch.name, patch.sha256, str(patch.path)) for patch in built]
    if as_json:
        keys = ("name", "sha256", "path")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
    else:
        table(rows)


@patches.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the wheel.")
@click.option("--lm-head", type=click.Choice(["fp8", "nvfp4"]), help="Quantize lm_head too, at load.")
@json_option
def wheel(output: Path, lm_head: "LmHead | None", *, as_json: bool) -> None:
    """Write the plugin for vLLM 0.32 and 0.33, the same bytes on every machine.

    \b
    Example:
      deckard-deploy patches wheel -o plugins
    """
    _print_file(operations.patch_check.build_wheel(output, lm_head), as_json=as_json)


@patches.command(name="filter")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the file.")
@json_option
def filter_(output: Path, *, as_json: bool) -> None:
    """Write the filter of requests, which vLLM loads by `--middleware`.

    \b
    Example:
      deckard-deploy patches filter -o filter
    """
    _print_file(operations.patch_check.build_request_filter(output), as_json=as_json)


def _print_file(row: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(row, indent=2))
    else:
        table([tuple(row.values())])


@patches.command()
@click.argument("releases", nargs=-1)
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
@set_option
@json_option
def matrix(releases: tuple[str, ...], *, markdown: bool, set_name: str, as_json: bool) -> None:
    """Compare each patch with other vLLM releases.

    The files are read from their wheels.

    \b
    Example:
      deckard-deploy patches matrix 0.19.1 0.20.2
    """
    patch_set = operations.patch_check.find_patch_set(set_name)
    found = dict(operations.patch_check.matrix(patch_set, releases, TERMINAL))
    if as_json:
        facts = {}
        for release, verdicts in found.items():
            facts[release] = [screens.patches.verdict_json(verdict) for verdict in verdicts]
        click.echo(json.dumps(facts, indent=2))
        return
    rows = screens.patches.matrix_rows(patch_set, found)
    if markdown:
        screens.patches.print_markdown(rows)
    else:
        table(rows)
