"""`diagnose`: the cause of a failure in a log."""

import json
from typing import BinaryIO

import click

from deckard_deploy import operations
from deckard_deploy.cli.options import json_option
from deckard_deploy.cli.output import table
from deckard_deploy.operations.diagnose import LogReport

NOTHING = {
    "ready": "nothing fatal: the engine is ready",
    "unfinished": "nothing fatal: the log ends while the engine starts",
}


@click.command()
@click.argument("log", metavar="[FILE|-]", type=click.File("rb"), default="-")
@click.option("--exit-code", type=int, help="The exit code of the engine, if it has ended.")
@json_option
def diagnose(*, log: BinaryIO, exit_code: int | None, as_json: bool) -> None:
    """Find the cause of a failure in a log of vLLM or docker.

    It reads any log: of this tool's deployment or of another, from a file or from a pipe. It needs no
    deployment.

    \b
    Example:
      docker logs NAME 2>&1 | deckard-deploy diagnose -
    """
    report = operations.diagnose.diagnose_log(log, exit_code)
    if as_json:
        click.echo(json.dumps(_facts(report), indent=2))
        return
    rows = []
    for key, value in _facts(report).items():
        if value is not None:
            rows.append((key.replace("_", " "), value))
    table(rows)


def _facts(report: LogReport) -> dict[str, str | None]:
    found = report.diagnosis
    if found is None:
        return {
            "state": report.state,
            "phase": report.phase,
            "signature": None,
            "first_fatal_line": None,
            "cause": NOTHING[report.state],
            "fix": None,
            "source": None,
        }
    cause = found.cause
    if report.state == "unfinished":
        cause = f"{NOTHING[report.state]}; if it hangs here: {cause}"
    return {
        "state": report.state,
        "phase": report.phase,
        "signature": found.signature,
        "first_fatal_line": found.first_fatal_line or None,
        "cause": cause,
        "fix": found.fix,
        "source": found.source or None,
    }
