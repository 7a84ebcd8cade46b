"""Benchmark records, and comparisons of two, as text of at most 80 columns or as JSON."""

import click

from deckard_deploy.cli.output import table
from deckard_deploy.cli.screens.layout import wrapped
from deckard_deploy.measuring.records import BenchRecord
from deckard_deploy.measuring.tables import cells, notes
from deckard_deploy.operations.bench_compare import ComparedSides, rows


def print_record(record: BenchRecord, *, as_json: bool) -> None:
    """Print the figures of a record, and the notes that a reader needs."""
    if as_json:
        click.echo(record.model_dump_json(indent=2))
        return
    table(cells(record))
    for line in notes(record):
        click.echo(line)


def print_comparison(compared: ComparedSides) -> None:
    """Print the ratios, the two sides, and the differences in their settings."""
    table(rows(compared))
    for label, side in (("old", compared.old), ("new", compared.new)):
        text = f"{label}  {side.name}: {side.about}"
        for line in wrapped(text, indent=5):
            click.echo(line)
    click.echo("old, new: geometric means of the runs in tok/s; bench show prints medians")
    if compared.different_subjects:
        for line in wrapped(f"DIFFERENT MODELS OR MACHINES: {compared.different_subjects}", indent=2):
            click.echo(line)
    if compared.measured_differently:
        click.echo(f"MEASURED DIFFERENTLY: {compared.measured_differently}")
    if compared.paired:
        click.echo("measured in turn, and compared pair by pair")
