"""Unified diffs, applied exactly at their line numbers.

`patch` searches for a place where a hunk fits (fuzz, offsets). That is wrong for a file that replaces a part
of vLLM: a diff must belong to exactly this file, else it is refused.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deckard_deploy.errors import IntegrityError

_HUNK = re.compile(r"@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@(?: .*)?\Z")
_TARGET = re.compile(r"vllm(?:/[A-Za-z0-9_]+)+\.py\Z")


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """The lines of one hunk, without newlines; `start` and `new_start` are line numbers, from 1."""

    start: int
    new_start: int
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FileDiff:
    """The hunks of one file, in order and without overlap; `target` like `vllm/v1/spec_decode/eagle.py`."""

    target: str
    hunks: tuple[Hunk, ...]


class HunkMismatchError(IntegrityError):
    """The file does not have the lines of a hunk at its line number."""

    def __init__(self, target: str, number: int, line: int) -> None:
        super().__init__(f"{target}: hunk {number} does not match at line {line}")
        self.number = number
        self.line = line


def parse(text: str, *, source: str) -> FileDiff:
    """Parse a unified diff of exactly one vLLM module.

    Raises IntegrityError, with `source` and the line, for anything else: another path, a created, deleted or
    renamed file, text outside hunks, counts that do not add up, hunks that overlap, carriage returns.
    """
    if "\r" in text or "\0" in text or not text.endswith("\n"):
        raise IntegrityError(f"{source}: not a text diff with plain newlines")
    lines = text.split("\n")[:-1]
    target = _parse_target(lines, source)
    hunks: list[Hunk] = []
    at = 2
    while at < len(lines):
        hunk, at = _parse_hunk(lines, at, source)
        _check_order(hunks, hunk, f"{source}:{at}")
        hunks.append(hunk)
    if not hunks:
        raise IntegrityError(f"{source}: no hunk")
    return FileDiff(target=target, hunks=tuple(hunks))


def apply(diff: FileDiff, base: str) -> str:
    """Return the patched text. Raises HunkMismatchError if the base lacks an old line of a hunk."""
    lines = base.split("\n")
    result: list[str] = []
    copied = 0
    for number, hunk in enumerate(diff.hunks, start=1):
        begin = hunk.start - 1
        for offset, line in enumerate(hunk.old):
            # The last item is the text after the final newline, which is not a line.
            if begin + offset >= len(lines) - 1 or lines[begin + offset] != line:
                raise HunkMismatchError(diff.target, number, hunk.start + offset)
        result += lines[copied:begin] + list(hunk.new)
        copied = begin + len(hunk.old)
    return "\n".join(result + lines[copied:])


def reverse(diff: FileDiff) -> FileDiff:
    """Return the diff that reverts the changes; it applies to a file that has them."""
    hunks = []
    for hunk in diff.hunks:
        hunks.append(Hunk(start=hunk.new_start, new_start=hunk.start, old=hunk.new, new=hunk.old))
    return FileDiff(target=diff.target, hunks=tuple(hunks))


def _parse_target(lines: Sequence[str], source: str) -> str:
    if len(lines) < 2 or not lines[0].startswith("--- a/") or not lines[1].startswith("+++ b/"):
        raise IntegrityError(f"{source}: a diff starts with '--- a/…' and '+++ b/…'")
    old, new = lines[0].removeprefix("--- a/"), lines[1].removeprefix("+++ b/")
    if old != new or not _TARGET.fullmatch(old):
        raise IntegrityError(f"{source}: {old!r} -> {new!r}: one module of vLLM was expected")
    return old


def _parse_hunk(lines: Sequence[str], at: int, source: str) -> tuple[Hunk, int]:
    """Parse the hunk whose header is line `at`; return it with the index of the line after it."""
    header = _HUNK.fullmatch(lines[at])
    if header is None:
        raise IntegrityError(f"{source}:{at + 1}: a hunk header was expected")
    start, old_count, new_start, new_count = (int(group) if group else 1 for group in header.groups())
    old: list[str] = []
    new: list[str] = []
    at += 1
    for line in _hunk_lines(lines, at, source):
        at += 1
        if line[0] != "+":
            old.append(line[1:])
        if line[0] != "-":
            new.append(line[1:])
        if (len(old), len(new)) == (old_count, new_count):
            break
    if (len(old), len(new)) != (old_count, new_count) or start < 1 or old == new:
        raise IntegrityError(f"{source}:{at}: the hunk does not have the lines that its header announces")
    return Hunk(start=start, new_start=new_start, old=tuple(old), new=tuple(new)), at


def _hunk_lines(lines: Sequence[str], at: int, source: str) -> Iterator[str]:
    for number, line in enumerate(lines[at:], start=at + 1):
        if line.startswith("@@"):
            return
        if line[:1] not in (" ", "+", "-"):
            raise IntegrityError(f"{source}:{number}: {line[:40]!r} is not a line of a hunk")
        yield line


def _check_order(hunks: Sequence[Hunk], hunk: Hunk, where: str) -> None:
    """Check the line numbers of a hunk against the hunks before it. Raises IntegrityError."""
    shift = sum(len(earlier.new) - len(earlier.old) for earlier in hunks)
    if hunk.new_start != hunk.start + shift:
        raise IntegrityError(
            f"{where}: the hunk starts at new line {hunk.new_start}, not {hunk.start + shift}"
        )
    if hunks and hunk.start < hunks[-1].start + len(hunks[-1].old):
        raise IntegrityError(f"{where}: the hunk overlaps the one before it")
