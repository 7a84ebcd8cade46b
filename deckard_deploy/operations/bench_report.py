"""`bench report`: a record as an HTML page with plots."""

from pathlib import Path

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError
from deckard_deploy.measuring import figures, plots
from deckard_deploy.measuring import report as page
from deckard_deploy.measuring.comparison import compare
from deckard_deploy.measuring.sides import of_record, published
from deckard_deploy.operations.bench import find_record
from deckard_deploy.operations.reporting import Reporter
from deckard_deploy.system.files import UMASK_MODE, translating_write_errors, write_atomically


def write_report(
    name: str, state_dir: Path | None, folder: Path, report: Reporter, *, against: str | None = None
) -> Path:
    """Write a record's page and its plots into `folder`. Return the page's path.

    against: a published table's name.
    Raises BadInputError (no such table), EnvironmentUnfitError (the disk).
    """
    record = find_record(state_dir, name)
    table = published(against) if against else None
    comparison = None
    if table:
        try:
            comparison = compare(table.speeds, of_record(record).speeds, exact=True)
        except BadInputError as error:
            report.say(f"no ratio {error.message}")  # the plot shows both all the same
    pictures: dict[str, bytes] = {}
    try:
        pictures = plots.pictures(figures.rows(record), table)
    except EnvironmentUnfitError as error:
        report.say(f"no plots {error.message}; try: {error.hint}")
    with translating_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for plot, picture in pictures.items():
            (folder / f"{record.id}-{plot}.png").write_bytes(picture)
    path = folder / f"{record.id}.html"
    text = page.html(record, pictures, published=table, comparison=comparison)
    write_atomically(path, text, mode=UMASK_MODE)
    return path
