"""A record as a self-contained HTML page, and as markdown for a model card."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deckard_deploy.measuring.baselines import Baseline
from deckard_deploy.measuring.comparison import Comparison
from deckard_deploy.measuring.figures import has_drafter, rows
from deckard_deploy.measuring.records import BenchRecord
from deckard_deploy.measuring.tables import cells, format_number, format_spread, notes
from deckard_deploy.resources import templates_dir

TITLES = {
    "throughput": "Throughput",
    "latency": "Latency",
    "acceptance": "Acceptance by position in the draft",
    "roofline": "Share of the roofline",
}


def html(
    record: BenchRecord,
    pictures: Mapping[str, bytes],
    *,
    published: Baseline | None = None,
    comparison: Comparison | None = None,
) -> str:
    """Return the page: templates/report.html.j2 with the pictures in it."""
    environment = Environment(
        loader=FileSystemLoader(templates_dir()), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    embedded = [(TITLES[name], base64.b64encode(picture).decode()) for name, picture in pictures.items()]
    return environment.get_template("report.html.j2").render(
        record=record,
        rows=rows(record),
        drafted=has_drafter(record),
        pictures=embedded,
        published=published,
        comparison=comparison,
        machine=machine(record.host),
        failed=record.failed,
        why_no_roof=record.unknown_roofline_reasons,
        number=format_number,
        spread=format_spread,
    )


def markdown(record: BenchRecord) -> str:
    """Return the table and notes of `bench show` as markdown, for a model card."""
    header, *lines = cells(record)
    rule = ("---:",) * len(header)
    table = ["| " + " | ".join(line) + " |" for line in (header, rule, *lines)]
    return "\n".join([*table, "", machine(record.host), *notes(record), ""])


def machine(host: Mapping[str, Any]) -> str:
    """Return the machine as a line: product, GPUs, memory, kernel."""
    try:
        text = ", ".join(_machine(host))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return "a machine that the record does not describe"
    printable = ""
    for letter in text:
        printable += letter if letter.isprintable() else "?"
    return printable


def _machine(host: Mapping[str, Any]) -> Iterator[str]:
    if host.get("product"):
        yield str(host["product"])
    gpus = host.get("gpus", ())
    for gpu in gpus:
        yield f"{gpu['name']} (driver {gpu.get('driver', 'unknown')})"
    if not gpus:
        yield "no GPU"
    if host.get("cpus"):
        yield f"{host['cpus']} CPUs ({host.get('architecture', 'unknown')})"
    memory = host.get("memory", {}).get("total_kib")
    if memory:
        yield f"{memory / 2**20:.0f} GiB"
    if host.get("kernel"):
        yield f"Linux {host['kernel']}"
