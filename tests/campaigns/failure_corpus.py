"""All known failures against all logs: python -m tests.campaigns.failure_corpus [FOLDER...]

The corpus: the logs of tests/unit/startup/logs, whose names say what they show (`ready` for an engine that starts),
the field cases of this repository that name a signature, and the logs (*.log) of the folders, which must be of
healthy engines.

Prints a line for each log: what it shows, what `diagnose` says, and the other causes that match in lines of it. A
false hit is another diagnosis than the expected one, any failure of a healthy engine, also without the line that
says that it is ready, or another cause in another line than the fatal one. Exits with 1 if there is one.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deckard_deploy.failures.log_lines import LogLine, parse
from deckard_deploy.failures.matching import may_be_fatal
from deckard_deploy.failures.signatures import Rank, load_signatures
from deckard_deploy.operations.diagnose import LogReport, diagnose_lines
from deckard_deploy.startup.diagnosis import READY, relevant_lines
from deckard_deploy.system.text import clean_lines
from tests.campaigns.field_cases import OWN, cases_in
from tests.support.field_cases import ROOT

LOGS = ROOT / "tests" / "unit" / "startup" / "logs"
HEALTHY = "ready"


@dataclass(frozen=True)
class CorpusLog:
    """A log, and the id of the failure that it shows, or HEALTHY."""

    name: str
    lines: list[str]
    expected: str
    exit_code: int | None = None


@dataclass(frozen=True)
class Result:
    """What was found in a log. others: causes that match in lines other than the fatal one."""

    log: CorpusLog
    found: str
    others: list[str]

    @property
    def false_hit(self) -> bool:
        return self.found != self.log.expected or bool(self.others)


def corpus(healthy: list[Path]) -> Iterator[CorpusLog]:
    """Yield every log."""
    for path in sorted(LOGS.glob("*.log")):
        yield CorpusLog(path.stem, clean_lines(path.read_bytes())[1:], path.stem.split(".")[0])
    for case in cases_in([OWN]):
        if "signature" in case.settings:
            text = case.text("engine.log", "message.txt", "words.txt")
            code = case.settings.get("exit_code", 1) if case.kind == "log" else None
            yield CorpusLog(f"case {case.name}", text.splitlines(), case.settings["signature"], code)
    for folder in healthy:
        for path in sorted(folder.rglob("*.log")):
            yield CorpusLog(str(path), clean_lines(path.read_bytes()), HEALTHY)


def check(log: CorpusLog) -> Result:
    """Diagnose a log and search it for other causes."""
    report = diagnose_lines(log.lines, log.exit_code)
    found = _found(report, log.expected)
    lines = list(map(parse, log.lines))
    if log.expected == HEALTHY and found == HEALTHY:
        unready = diagnose_lines([line for line in log.lines if READY not in line])
        found = HEALTHY if _survived(unready) else _found(unready, log.expected)
    return Result(log, found, sorted(set(_other_causes(log, lines))))


def _found(report: LogReport, expected: str) -> str:
    # An excerpt of a healthy start may end before the engine is ready.
    if report.state == "ready" or (report.state == "unfinished" and expected == HEALTHY):
        return HEALTHY
    return report.diagnosis.signature if report.diagnosis else "nothing"


def _survived(report: LogReport) -> bool:
    """Return True for a request that failed in a healthy engine: an exception that no signature knows for sure."""
    return report.diagnosis is not None and report.diagnosis.rank not in (Rank.CAUSE, Rank.ECHO)


def _other_causes(log: CorpusLog, lines: list[LogLine]) -> Iterator[str]:
    causes = [each for each in load_signatures() if each.rank is Rank.CAUSE and not each.context]
    own = [each for each in load_signatures() if each.id == log.expected]
    for line in relevant_lines(lines) if log.expected != HEALTHY else lines:
        if not may_be_fatal(line) or any(each.search(line.text) for each in own):
            continue
        yield from (each.id for each in causes if each.search(line.text))


def run(healthy: list[Path]) -> int:
    """Print the table. Return the number of false hits."""
    results = [check(log) for log in corpus(healthy)]
    for result in results:
        mark = "FALSE" if result.false_hit else "ok"
        others = f"  also: {', '.join(result.others)}" if result.others else ""
        print(f"{mark:5}  {result.log.name:45}  {result.log.expected:30}  {result.found}{others}")
    false = sum(result.false_hit for result in results)
    healthy_logs = sum(result.log.expected == HEALTHY for result in results)
    signatures = len(load_signatures())
    print(
        f"{signatures} signatures, {len(results)} logs, {healthy_logs} of healthy engines: {false} false hits"
    )
    return false


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="*")
    sys.exit(bool(run(parser.parse_args().folders)))


if __name__ == "__main__":
    main()
