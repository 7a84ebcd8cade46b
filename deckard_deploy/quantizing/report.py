"""The record of a quantization: quantization-report.json, and the model card in Markdown."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from deckard_deploy.catalog.specs import RecipeSpec
from deckard_deploy.quantizing.calibration import CalibrationData
from deckard_deploy.system.text import clock, escaped

REPORT, CARD = "quantization-report.json", "README.md"
_WORST = 10  # linears in the card's table; the report has all


class Made(NamedTuple):
    """What was quantized, and from what. result: of the worker. repaired: NaN scales and what became of them."""

    source: Mapping[str, str | None]
    recipe: RecipeSpec
    data: CalibrationData
    result: Mapping[str, Any]
    versions: Mapping[str, str]
    bytes_before: int
    bytes_after: int
    repaired: Mapping[str, int]


def as_json(made: Made) -> dict[str, Any]:
    """Return the content of quantization-report.json."""
    return {
        "source": dict(made.source),
        "recipe": made.recipe.model_dump(mode="json"),
        "calibration": {
            "name": made.data.name,
            "sha256": made.data.sha256,
            "texts": made.result["texts"],
            "of": made.data.available,
            "tokens": made.result["tokens"],
            "for_rehearsals_only": made.data.is_for_rehearsals,
        },
        "versions": {**made.versions, "torch": made.result["torch"]},
        "device": made.result["device"],
        "peak_gpu_bytes": made.result["peak_gpu_bytes"],
        "seconds": made.result["seconds"],
        "bytes": {"before": made.bytes_before, "after": made.bytes_after},
        "nan_scales": dict(made.repaired),
        "relative_error_of_weights": made.result["errors"],
    }


def card(name: str, made: Made) -> str:
    """Return the model card."""
    recipe, data, result = made.recipe, made.data, made.result
    errors = sorted(result["errors"].items(), key=lambda each: -each[1])
    total = sum(result["seconds"].values())
    lines = [
        f"# {name}",
        "",
        f"{escaped(str(made.source['name']))}, quantized to NVFP4 with recipe `{recipe.name}`: {recipe.description}.",
        "",
    ]
    if data.is_for_rehearsals:
        lines += [
            "**The calibration data is the built-in text for rehearsals. Its scales fit no real use: do not publish.**",
            "",
        ]
    lines += ["| | |", "|---|---|"]
    rows = {
        "source": made.source["repo"] or made.source["name"],
        "source commit": made.source["commit"],
        "method": recipe.method,
        **_settings(recipe),
        "modules in BF16": ", ".join(f"`{pattern}`" for pattern in recipe.exclude),
        "KV-cache scales": recipe.kv_cache,
        "calibration": f"{data.name}, {result['texts']} of {data.available} texts, {result['tokens']} tokens",
        "calibration sha256": data.sha256,
        "size": f"{made.bytes_before:,} bytes before, {made.bytes_after:,} now",
        "time": f"{clock(total)} on {result['device']}",
        "ModelOpt": made.versions["modelopt"],
        "NaN scales": str(made.repaired["found"]),
    }
    lines += [f"| {key} | {escaped(str(value))} |" for key, value in rows.items() if value is not None]
    median = errors[len(errors) // 2][1]
    lines += [
        "",
        "Relative error of the weights (Frobenius norm), read back from the files; it is no measure of the answers.",
        f"Median {median:.4f}; the largest:",
        "",
        "| linear | error |",
        "|---|---|",
        *(f"| `{escaped(linear)}` | {error:.4f} |" for linear, error in errors[:_WORST]),
        "",
        f"All of them, and every setting, are in {REPORT}.",
    ]
    return "\n".join(lines) + "\n"


def _settings(recipe: RecipeSpec) -> dict[str, object]:
    return {
        "alpha step": recipe.alpha_step,
        "smallest clip ratio": recipe.min_clip_ratio,
        "clip step": recipe.shrink_step,
        "rank": recipe.lowrank,
        "tokens of a text": recipe.sequence_length,
        "seed": recipe.seed,
    }
