"""`bench report`: a page and its pictures."""

from pathlib import Path

import click

from deckard_deploy.cli.bench_compare import of_record, published
from deckard_deploy.cli.output import say
from deckard_deploy.cli.state import state, state_option
from deckard_deploy.errors import BadInputError
from deckard_deploy.measuring import comparison as comparing
from deckard_deploy.measuring import figures, plots, records
from deckard_deploy.measuring import report as page
from deckard_deploy.system.files import UMASK_MODE, write_atomically, writing


@click.command()
@click.argument("record", default="last")
@click.option("--compare", "against", metavar="NAME", help="Beside a published table: seed.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder; default: the current one.",
)
@state_option
def report(record: str, *, against: str | None, output: Path | None, state_dir: Path | None) -> None:
    """Write a record as one HTML page, and its plots as PNG files.

    The path of the page is the only thing on stdout. The plots need the extra: pip install 'deckard-deploy[report]'.

    \b
    Example:
      deckard-deploy bench report last --compare seed -o report
    """
    found = records.load(records.find(state(state_dir).bench, record))
    table = published(against) if against else None
    comparison = None
    if table:
        try:
            comparison = comparing.compare(table.speeds, of_record(found).speeds, exact=True)
        except BadInputError as error:
            say(f"no ratio {error.message}")  # the plot shows both all the same
    pictures = plots.pictures(figures.rows(found), table)
    folder = output or Path()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (folder / f"{found.id}-{name}.png").write_bytes(picture)
    path = folder / f"{found.id}.html"
    write_atomically(
        path, page.html(found, pictures, published=table, comparison=comparison), mode=UMASK_MODE
    )
    click.echo(path)
