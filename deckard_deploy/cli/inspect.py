"""`inspect`: what a checkpoint is and whether it can be served, from its headers."""

import json
from pathlib import Path

import click

from deckard_deploy.cli.output import table
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.patching.manifest import load_patch_set, needed
from deckard_deploy.weights import inspection
from deckard_deploy.weights.inspection import Inspection

_PATCH_SET = "vllm-0.19.1"


@click.command()
@click.argument("model", metavar="MODEL|DIR")
@click.option("--drafter", metavar="MODEL|DIR", help="Check that this one can draft for it.")
@click.option(
    "--nan", "count_nan", is_flag=True, help="Read the weight scales too, and count those that are NaN."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_option
def inspect(  # click hands over every option by name
    *, model: str, drafter: str | None, count_nan: bool, as_json: bool, state_dir: Path | None
) -> None:
    """Show what a checkpoint holds and what is wrong with it.

    Reads headers and configuration only. The exit code is 4 when the checkpoint cannot be served.

    \b
    Example:
      deckard-deploy inspect deckard-31b
    """
    found = inspection.inspect(
        _folder(model, state_dir),
        drafter=_folder(drafter, state_dir) if drafter else None,
        count_nan=count_nan,
    )
    patches = _patches(found.quantization, drafter=drafter is not None)
    if as_json:
        click.echo(json.dumps(found.as_json() | {"patches": patches}, indent=2))
    else:
        _show(found, patches)
    if found.faults:
        click.get_current_context().exit(4)


def _folder(named: str, state_dir: Path | None) -> Path:
    """A folder if it is written like one or exists, else the folder of that model."""
    path = Path(named)
    return path if "/" in named or path.is_dir() else state(state_dir).models / named


def _patches(quantization: str, *, drafter: bool) -> list[str]:

    return [
        patch.name for patch in needed(load_patch_set(_PATCH_SET), drafter=drafter, quantization=quantization)
    ]


def _show(found: "Inspection", patches: list[str]) -> None:
    smoothed = sum(linear.smoothed for linear in found.linears)
    rows = [
        ("folder", found.folder),
        ("architecture", found.architecture or "unknown"),
        (
            "quantization",
            f"{found.quant_algo or 'none'}" + (f", by {found.producer}" if found.producer else ""),
        ),
        *(
            ("layers", f"{count} {kind}: {heads} heads, {kv_heads} KV heads of {size}")
            for kind, count, heads, kv_heads, size in found.layers
        ),
        *(("tensors", f"{count} in {name}") for name, count in sorted(found.formats.items())),
        ("linears", f"{len(found.linears)} packed, {smoothed} with pre_quant_scale"),
        *(("bytes", f"{size / 1e9:.3f} GB {name}") for name, size in sorted(found.components.items())),
        ("bytes", f"{found.total_bytes / 1e9:.3f} GB in all"),
        *((("NaN scales", str(found.nan_scales)),) if found.nan_scales is not None else ()),
        (_PATCH_SET, f"needs the patches {', '.join(patches)}"),
        *(("fault", fault) for fault in found.faults),
    ]
    table(rows)
