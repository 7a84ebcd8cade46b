"""A record as a page that needs nothing beside it, and as markdown for a model card."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from deckard_deploy.measuring.baselines import Baseline
from deckard_deploy.measuring.comparison import Comparison
from deckard_deploy.measuring.figures import rows
from deckard_deploy.measuring.records import Record
from deckard_deploy.measuring.tables import cells, notes, number, spread_text
from deckard_deploy.resources import templates_dir

TITLES = {
    "throughput": "Throughput",
    "latency": "Latency",
    "acceptance": "Acceptance by position in the draft",
    "roofline": "Share of the roofline",
}


def html(
    record: Record,
    pictures: Mapping[str, bytes],
    *,
    published: Baseline | None = None,
    comparison: Comparison | None = None,
) -> str:
    """The page: templates/report.html.j2 with the pictures in it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  not for --help

    environment = Environment(
        loader=FileSystemLoader(templates_dir()), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    embedded = [(TITLES[name], base64.b64encode(picture).decode()) for name, picture in pictures.items()]
    found = rows(record)
    return environment.get_template("report.html.j2").render(
        record=record,
        rows=found,
        drafted=any(row.acceptance is not None for row in found),
        pictures=embedded,
        published=published,
        comparison=comparison,
        machine=machine(record.host),
        failed=sum(run.failed for run in record.runs),
        why_no_roof=sorted({ceiling.why for ceiling in record.ceilings if ceiling.why}),
        number=number,
        spread=spread_text,
    )


def markdown(record: Record) -> str:
    """The table of `bench show`, for a model card."""
    header, *lines = cells(record)
    table = [header, tuple("---:" for _ in header), *lines]
    said = "\n".join(notes(record))
    return (
        "\n".join("| " + " | ".join(line) + " |" for line in table) + f"\n\n{machine(record.host)}\n{said}\n"
    )


def machine(host: Mapping[str, Any]) -> str:
    """The machine in a line: product, GPUs, memory, kernel."""
    try:
        words = ", ".join(_machine(host))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return "a machine that the record does not describe"
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def _machine(host: Mapping[str, Any]) -> Iterator[str]:
    if host.get("product"):
        yield str(host["product"])
    gpus = [f"{gpu['name']} (driver {gpu.get('driver', 'unknown')})" for gpu in host.get("gpus", ())]
    yield ", ".join(gpus) or "no GPU"
    if host.get("cpus"):
        yield f"{host['cpus']} CPUs ({host.get('architecture', 'unknown')})"
    if memory := host.get("memory", {}).get("total_kib"):
        yield f"{memory / 2**20:.0f} GiB"
    if host.get("kernel"):
        yield f"Linux {host['kernel']}"
