"""An inspected checkpoint as a table."""

from deckard_deploy.operations.inspect import PATCH_SET, InspectedCheckpoint


def checkpoint_rows(checkpoint: InspectedCheckpoint) -> list[tuple[str, str]]:
    """Return the facts of a checkpoint, the patches that it needs, and its faults, one row each."""
    found = checkpoint.found
    quantization = found.format
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
    if found.linears:
        smoothed = sum(linear.smoothed for linear in found.linears)
        rows.append(("linears", f"{len(found.linears)} packed, {smoothed} with pre_quant_scale"))
    for name, size in sorted(found.components.items()):
        rows.append(("bytes", f"{size / 1e9:.3f} GB {name}"))
    rows.append(("bytes", f"{found.total_bytes / 1e9:.3f} GB in all"))
    if found.nan_scales is not None:
        rows.append(("NaN scales", str(found.nan_scales)))
    rows.append(("loaded by", ", ".join(found.loaded_by) or "no release of this tool"))
    rows.append((PATCH_SET, f"needs the patches {', '.join(checkpoint.patches)}"))
    for line in checkpoint.template.shown:
        rows.append(("chat template", line))
    for line in checkpoint.template.faults:
        rows.append(("grammars", line))
    for fault in found.faults:
        rows.append(("fault", fault))
    return rows
