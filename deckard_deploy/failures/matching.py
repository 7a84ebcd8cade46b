"""Search for known failures in the lines of a log, or in the message of docker."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from deckard_deploy.failures.log_lines import LogLine, parse, without_secrets
from deckard_deploy.failures.signatures import Rank, Signature, load_signatures

MAX_VALUE = 120  # characters of a value taken from a line into cause or fix
STALL_LINES = 50  # from the end, in which the last progress of a stalled start is searched
# Lines of a traceback that quote source code, which may hold the text of a message.
_FRAME = re.compile(r' {4}|  File "')


class KnownFailure(NamedTuple):
    """A known failure in a log, with the line that shows it. Cause and fix are one line each."""

    signature: Signature
    line: str
    cause: str
    fix: str


def may_be_fatal(line: LogLine) -> bool:
    """Return True if the line may name a cause: no record below ERROR, no source code of a traceback."""
    return bool(line.text) and not line.harmless and not _FRAME.match(line.text)


def find_failure(lines: Sequence[LogLine], rank: Rank) -> KnownFailure | None:
    """Return the known failure of the first line that matches a signature of this rank.

    Every process up to the API server reports the failure of the one below. So the first line counts, even if
    louder ones follow.
    """
    signatures = [each for each in load_signatures() if each.rank is rank and each.lines]
    found = _first(lines, signatures, fatal=True)
    if found is None:
        found = _first(lines, [each for each in signatures if each.any_level], fatal=False)
    return found


def find_stall(lines: Sequence[LogLine]) -> KnownFailure | None:
    """Return the known reason why a start hangs after the last progress in these lines."""
    signatures = [each for each in load_signatures() if each.rank is Rank.STALL]
    for line in reversed(lines[-STALL_LINES:]):
        for signature in signatures:
            if found := signature.search(line.text):
                return known_failure(signature, line.text, found.groupdict())
    return None


def find_area(exception: str, files: Iterable[str]) -> KnownFailure | None:
    """Return the part of the engine from which an unknown exception comes.

    files: those of its traceback, innermost first.
    """
    areas = [each for each in load_signatures() if each.rank is Rank.AREA]
    for path in files:
        for area in areas:
            if area.search(path):
                return known_failure(area, exception, {})
    return None


def find_in_message(message: str) -> KnownFailure | None:
    """Return the known failure that a message of docker reports."""
    lines = [parse(text) for text in message.splitlines()]
    return find_failure(lines, Rank.CAUSE) or find_failure(lines, Rank.CONSEQUENCE)


def known_failure(signature: Signature, line: str, groups: dict[str, str | None]) -> KnownFailure:
    """Return the failure with the values of the line in cause and fix."""
    values = {name: without_secrets(text or "")[:MAX_VALUE] for name, text in groups.items()}  # guard: F26
    return KnownFailure(signature, line, signature.cause.format_map(values), signature.fix.format_map(values))


def _first(lines: Sequence[LogLine], signatures: Iterable[Signature], *, fatal: bool) -> KnownFailure | None:
    searched: set[str] = set()  # in vain; a log repeats its lines
    for number, line in enumerate(lines):
        if line.text in searched or (fatal and not may_be_fatal(line)):
            continue
        searched.add(line.text)
        for signature in signatures:
            found = signature.search(line.text)
            if not found:
                continue
            if _has_context(signature, lines[: number + 1]):  # guard: F25
                return known_failure(signature, line.text, found.groupdict())
            searched.discard(line.text)
    return None


def _has_context(signature: Signature, lines: Sequence[LogLine]) -> bool:
    if signature.context is None:
        return True
    return any(signature.context.search(line.text) for line in reversed(lines))
