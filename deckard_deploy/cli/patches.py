"""`patches`: what we change in vLLM, whether it fits, and the changed files."""

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deckard_deploy.cli.options import resolve_choice
from deckard_deploy.cli.output import say, table
from deckard_deploy.cli.patch_choice import needed_patches
from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.patching import build as builds
from deckard_deploy.patching import manifest, overlay, plugin
from deckard_deploy.patching.base_file_sources import find_base
from deckard_deploy.patching.base_files import BaseFiles
from deckard_deploy.patching.build import PatchVerdict
from deckard_deploy.patching.manifest import Patch, PatchSet, load_patch_set

_DEFAULT_SET = "vllm-0.19.1"
_QUANTIZATIONS = ("none", "nvfp4", "nvfp4_awq", "nvfp4_svd")
_RELEASES = ("0.19.0", "0.19.1", "0.20.2", "0.24.0", "0.33.0")


@click.group()
def patches() -> None:
    """List, check and build the vLLM patches.

    \b
    Example:
      deckard-deploy patches check --image vllm/vllm-openai:v0.19.1-cu130
    """


def set_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which patch set."""
    return click.option("--set", "set_name", default=_DEFAULT_SET, show_default=True, help="Patch set.")(
        command
    )


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Machine-readable output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the engine's own files come from, and which plan it is for."""
    for option in reversed(
        (
            click.option("--image", help="Read vLLM's files out of this local image."),
            click.option(
                "--package", metavar="DIR", help="Folder of an installed vllm package, or inside the image."
            ),
            click.option("--wheel", metavar="FILE|URL", help="Read them out of a wheel of the release."),
            click.option(
                "--drafter/--no-drafter", default=True, help="With a draft model or without; default: with."
            ),
            click.option(
                "--quantization",
                type=click.Choice(_QUANTIZATIONS),
                default="nvfp4_awq",
                help="Of the checkpoint.",
            ),
        )
    ):
        command = option(command)
    return command


@patches.command("list")
@click.option("-p", "--profile", help="Say which of them this profile's plan needs.")
@click.option("--model", help="The plan's model; default: the profile's.")
@click.option("--drafter", help="The plan's draft model.")
@json_option
def list_patches(profile: str | None, model: str | None, drafter: str | None, as_json: bool) -> None:  # noqa: FBT001  click passes flags so
    """List the patches: what they change, why, and whether a plan needs them.

    \b
    Example:
      deckard-deploy patches list --profile spark --drafter deckard-e4b
    """
    patch_set = _load(_DEFAULT_SET)
    needed = _needed_by(profile, model, drafter, patch_set) if profile else None
    if as_json:
        listed = json.loads(patch_set.model_dump_json())
        for entry in listed["patches"]:
            entry["needed"] = None if needed is None else entry["name"] in needed
        click.echo(json.dumps(listed, indent=2))
        return
    for patch in patch_set.patches:
        verdict = (
            "" if needed is None else f"{'needed' if patch.name in needed else 'not needed'} by {profile}; "
        )
        click.echo(f"{patch.name}  {verdict}needed with: {_when(patch)}")
        click.echo(f"  {patch.target}")
        for text in (patch.reason, *(["Without it: " + patch.unpatched] if patch.unpatched else [])):
            click.echo(textwrap.indent(textwrap.fill(text, 76), "    "))


def _needed_by(
    profile: str | None, model: str | None, drafter: str | None, patch_set: "PatchSet"
) -> set[str]:
    """The names of the patches that the plan of these options needs; none when its engine is of another set."""
    named = (("model", model), ("drafter", drafter))
    settings = tuple(f"{key}={json.dumps(value)}" for key, value in named if value)
    resolved = resolve_choice(profile=profile, config=None, settings=settings, compat=None)
    if resolved.engine.patch_set != patch_set.name:
        return set()
    return {patch.name for patch in needed_patches(resolved)}


@patches.command()
@click.argument("names", nargs=-1)
@set_option
def diff(names: tuple[str, ...], set_name: str) -> None:
    """Print patches as unified diffs.

    \b
    Example:
      deckard-deploy patches diff modelopt | less
    """
    patch_set = _load(set_name)
    for patch in _named(patch_set, names):
        click.echo(patch_set.diff_file(patch).read_text(encoding="utf-8"), nl=False)


@patches.command()
@click.option(
    "--release", metavar="VERSION", help="Read them out of the wheel of that vLLM release, all patches."
)
@set_option
@source_options
@json_option
def check(  # one argument per option
    *,
    release: str | None,
    set_name: str,
    drafter: bool,
    quantization: str,
    as_json: bool,
    **source: str | None,
) -> None:
    """Say whether the patches fit an engine's files; exit code 4 when one does not.

    \b
    Example:
      deckard-deploy patches check --image vllm/vllm-openai:v0.19.1-cu130 --no-drafter
    """
    patch_set = _load(set_name)
    if release is not None:
        base = _of_release(patch_set, release, source)
        verdicts = builds.check_release(patch_set, base, release)
    else:
        base = _base(patch_set, source)
        verdicts = builds.check(patch_set, base, drafter=drafter, quantization=quantization)
    say(f"{set_name} against {base.origin}")
    if as_json:
        click.echo(json.dumps([_as_json(verdict) for verdict in verdicts], indent=2))
    else:
        table([(verdict.name, _cell(verdict), verdict.found) for verdict in verdicts])
    unfit = [verdict.name for verdict in verdicts if not verdict.fits]
    if unfit:
        raise IntegrityError(
            f"{base.origin}: {', '.join(unfit)} would not fit", hint="deckard-deploy engines"
        )


@patches.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the patched files."
)
@click.option("--overlay", "as_overlay", is_flag=True, help="Also link the rest of --package around them.")
@click.option(
    "--import-with", metavar="PYTHON", type=click.Path(path_type=Path), help="Import the result with it."
)
@set_option
@source_options
@json_option
def build(  # noqa: PLR0913  one argument per option
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
    """Write the patched files; exit code 4 when a base file is not the release's.

    \b
    Example:
      deckard-deploy patches build --package .venv/lib/python3.12/site-packages/vllm --overlay -o patched
    """
    if (as_overlay or import_with) and (source["image"] or not source["package"]):
        raise BadInputError("--overlay and --import-with need an installed vLLM", hint="--package DIR")
    patch_set = _load(set_name)
    chosen = manifest.needed(patch_set, drafter=drafter, quantization=quantization)
    built = builds.build(patch_set, _base(patch_set, source), output, chosen)
    if as_overlay or import_with:
        overlay.overlay(Path(str(source["package"])), built, output / "overlay")
    if import_with:
        builds.import_built(built, import_with, output / "overlay")
    rows = [(patch.name, patch.sha256, str(patch.path)) for patch in built]
    if as_json:
        click.echo(
            json.dumps([dict(zip(("name", "sha256", "path"), row, strict=True)) for row in rows], indent=2)
        )
    else:
        table(rows)


@patches.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the wheel.")
@json_option
def wheel(output: Path, *, as_json: bool) -> None:
    """Write the plugin for vLLM 0.32, the same bytes on every machine.

    \b
    Example:
      deckard-deploy patches wheel -o plugins
    """
    path = plugin.build(plugin.NAME, output / plugin.WHEEL)
    row = {"name": plugin.NAME, "sha256": plugin.sha256_of(plugin.NAME), "path": str(path)}
    if as_json:
        click.echo(json.dumps(row, indent=2))
    else:
        table([tuple(row.values())])


@patches.command()
@click.argument("releases", nargs=-1)
@click.option("--markdown", is_flag=True, help="Print a Markdown table.")
@set_option
@json_option
def matrix(releases: tuple[str, ...], markdown: bool, set_name: str, as_json: bool) -> None:  # noqa: FBT001  same
    """Say what each patch is to other vLLM releases, read from their wheels.

    \b
    Example:
      deckard-deploy patches matrix 0.19.1 0.20.2
    """
    patch_set = _load(set_name)
    rows: dict[str, tuple[PatchVerdict, ...]] = {}
    for release in releases or _RELEASES:
        base = _of_release(patch_set, release, {})
        rows[release] = builds.check_release(patch_set, base, release)
        say(f"{release}: {base.origin}")
    if as_json:
        click.echo(
            json.dumps({release: [_as_json(one) for one in row] for release, row in rows.items()}, indent=2)
        )
        return
    cells = [("vLLM", *(patch.name for patch in patch_set.patches))]
    cells += [(release, *(_cell(verdict) for verdict in row)) for release, row in rows.items()]
    if markdown:
        cells.insert(1, tuple("---" for _ in cells[0]))
        click.echo("\n".join(f"| {' | '.join(row)} |" for row in cells))
    else:
        table(cells)


def _load(set_name: str) -> "PatchSet":

    return load_patch_set(set_name)


def _base(patch_set: "PatchSet", source: dict[str, str | None]) -> "BaseFiles":
    from platformdirs import user_cache_path

    return find_base(patch_set, cache=user_cache_path("deckard-deploy") / "bases", **source)


def _of_release(patch_set: "PatchSet", release: str, source: dict[str, str | None]) -> "BaseFiles":
    from deckard_deploy.patching import wheel

    if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}", release):
        raise BadInputError(f"release {release!r}: a version such as 0.19.1 was expected")
    if any(source.values()):
        raise BadInputError("--release cannot be combined with --image, --package or --wheel")
    return wheel.from_wheel(wheel.release_wheel(release), [patch.target for patch in patch_set.patches])


def _named(patch_set: "PatchSet", names: tuple[str, ...]) -> tuple["Patch", ...]:
    known = {patch.name: patch for patch in patch_set.patches}
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r}; known: {', '.join(known)}", param_hint="NAMES")
    return tuple(known[name] for name in names) or patch_set.patches


def _when(patch: "Patch") -> str:
    when = patch.needed_when
    reasons = (
        (["always"] if when.always else []) + (["drafter"] if when.drafter else []) + list(when.quantization)
    )
    return ",".join(reasons)


def _as_json(verdict: "PatchVerdict") -> dict[str, object]:
    return {
        "name": verdict.name,
        "target": verdict.target,
        "verdict": verdict.verdict.name.lower(),
        "fits": verdict.fits,
        "detail": verdict.detail,
        "found": verdict.found,
    }


def _cell(verdict: "PatchVerdict") -> str:
    return f"{verdict.verdict.value}: {verdict.detail}" if verdict.detail else verdict.verdict.value
