"""`inspect`: what a checkpoint is and whether it can be served, from its headers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deckard_deploy.cli.options import json_option, state_option
from deckard_deploy.cli.output import table

if TYPE_CHECKING:
    from deckard_deploy.operations.inspect import InspectedCheckpoint


@click.command()
@click.argument("model", metavar="MODEL|DIR")
@click.option("--drafter", metavar="MODEL|DIR", help="Check that this one can draft for it.")
@click.option(
    "--nan", "count_nan", is_flag=True, help="Read the weight scales too, and count those that are NaN."
)
@json_option
@state_option
def inspect(
    *, model: str, drafter: str | None, count_nan: bool, as_json: bool, state_dir: Path | None
) -> None:
    """Show what a checkpoint holds and what is wrong with it.

    Reads headers and configuration only. The exit code is 4 when the checkpoint cannot be served.

    \b
    Example:
      deckard-deploy inspect deckard-31b
    """
    from deckard_deploy.operations import inspect as operation

    checkpoint = operation.inspect_checkpoint(model, drafter, state_dir, count_nan=count_nan)
    if as_json:
        facts = checkpoint.found.as_json() | {"patches": checkpoint.patches}
        click.echo(json.dumps(facts, indent=2))
    else:
        table(_rows(checkpoint, operation.PATCH_SET))
    if checkpoint.found.faults:
        click.get_current_context().exit(4)


def _rows(checkpoint: "InspectedCheckpoint", patch_set: str) -> list[tuple[str, str]]:
    found = checkpoint.found
    smoothed = sum(linear.smoothed for linear in found.linears)
    quantization = found.quant_algo or "none"
    if found.producer:
        quantization += f", by {found.producer}"
    rows = [
        ("folder", str(found.folder)),
        ("architecture", found.architecture or "unknown"),
        ("quantization", quantization),
    ]
    for kind, count, heads, kv_heads, size in found.layers:
        rows.append(("layers", f"{count} {kind}: {heads} heads, {kv_heads} KV heads of {size}"))
    for name, count in sorted(found.formats.items()):
        rows.append(("tensors", f"{count} in {name}"))
    rows.append(("linears", f"{len(found.linears)} packed, {smoothed} with pre_quant_scale"))
    for name, size in sorted(found.components.items()):
        rows.append(("bytes", f"{size / 1e9:.3f} GB {name}"))
    rows.append(("bytes", f"{found.total_bytes / 1e9:.3f} GB in all"))
    if found.nan_scales is not None:
        rows.append(("NaN scales", str(found.nan_scales)))
    rows.append((patch_set, f"needs the patches {', '.join(checkpoint.patches)}"))
    for fault in found.faults:
        rows.append(("fault", fault))
    return rows
