"""A diff must belong to exactly one file, else it is refused."""

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching.unified_diff import FileDiff, HunkMismatchError, apply, parse, reverse

TARGET = "vllm/v1/spec_decode/eagle.py"
BASE = "".join(f"line {number}\n" for number in range(1, 31))
CHANGED = BASE.replace("line 10\n", "line ten\nand more\n").replace("line 25\n", "")


def diff_of(old: str, new: str, target: str = TARGET) -> str:
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"a/{target}", f"b/{target}", lineterm=""
    )
    return "\n".join(lines) + "\n"


GOOD = diff_of(BASE, CHANGED)


def test_diff_gives_new_file_and_reverse_old():
    diff = parse(GOOD, source="x.patch")
    assert diff.target == TARGET
    assert apply(diff, BASE) == CHANGED
    assert apply(reverse(diff), CHANGED) == BASE


@pytest.mark.parametrize(
    ("change", "hunk", "line"),
    [
        (("line 9\n", "line nine\n"), 1, 9),
        (("line 10\n", "line 10 \n"), 1, 10),
        (("line 28\n", ""), 2, 28),
        (("line 1\n", "line 0\nline 1\n"), 1, 7),
    ],
    ids=["context", "trailing space", "line missing", "shifted by one"],
)
def test_mismatched_hunk_is_named(change, hunk, line):
    with pytest.raises(HunkMismatchError) as refused:
        apply(parse(GOOD, source="x.patch"), BASE.replace(*change))
    assert (refused.value.number, refused.value.line) == (hunk, line)
    assert str(refused.value) == f"{TARGET}: hunk {hunk} does not match at line {line}"


def test_base_shorter_than_hunk_is_refused():
    with pytest.raises(HunkMismatchError):
        apply(parse(GOOD, source="x.patch"), "line 1\nline 2\n")


def test_hunk_does_not_match_end_as_empty_line():
    text = f"--- a/{TARGET}\n+++ b/{TARGET}\n@@ -1,2 +1,3 @@\n last\n \n+more\n"
    with pytest.raises(HunkMismatchError):
        apply(parse(text, source="x.patch"), "last\n")


HOSTILE = {
    "empty": "",
    "no newline at the end": GOOD[:-1],
    "carriage returns": GOOD.replace("\n", "\r\n"),
    "a zero byte": GOOD.replace("line ten", "line\0ten"),
    "an absolute path": GOOD.replace(TARGET, "/etc/passwd"),
    "a path that climbs": GOOD.replace(TARGET, "vllm/../../etc/cron.py"),
    "a path outside vllm": GOOD.replace(TARGET, "torch/nn/__init__.py"),
    "not a Python file": GOOD.replace(TARGET, "vllm/v1/_C.so"),
    "two names": GOOD.replace(f"+++ b/{TARGET}", "+++ b/vllm/envs.py"),
    "a created file": GOOD.replace(f"--- a/{TARGET}", "--- /dev/null"),
    "a deleted file": GOOD.replace(f"+++ b/{TARGET}", "+++ /dev/null"),
    "no hunk": f"--- a/{TARGET}\n+++ b/{TARGET}\n",
    "prose before the diff": "Please apply\n" + GOOD,
    "prose after the diff": GOOD + "thanks\n",
    "a second file": GOOD + diff_of(BASE, CHANGED, "vllm/envs.py"),
    "git's mode lines": f"diff --git a/{TARGET} b/{TARGET}\nold mode 100644\nnew mode 100755\n" + GOOD,
    "too few lines": GOOD.replace("@@ -7,7 +7,8 @@", "@@ -7,8 +7,9 @@"),
    "too many lines": GOOD.replace("@@ -7,7 +7,8 @@", "@@ -7,6 +7,7 @@"),
    "a wrong new start": GOOD.replace("@@ -7,7 +7,8 @@", "@@ -7,7 +8,8 @@"),
    "line zero": GOOD.replace("@@ -7,7 +7,8 @@", "@@ -0,7 +0,8 @@"),
    "a huge line number": GOOD.replace("@@ -7,7", f"@@ -{'9' * 5000},7"),
    "hunks out of order": GOOD[: GOOD.index("@@ -7")]
    + GOOD[GOOD.index("@@ -22") :]
    + GOOD[GOOD.index("@@ -7") : GOOD.index("@@ -22")],
    "a hunk twice": GOOD + GOOD[GOOD.index("@@ -22") :],
    "a hunk without a change": f"--- a/{TARGET}\n+++ b/{TARGET}\n@@ -1 +1 @@\n line 1\n",
    "no newline marker": GOOD + "\\ No newline at end of file\n",
    "other digits": GOOD.replace("@@ -7,7", "@@ -\u0667,7"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_malformed_diff_is_refused(text):
    with pytest.raises(IntegrityError):
        parse(text, source="x.patch")


LINES = st.lists(st.sampled_from(["a", "b", "", " ", "-x", "+y", "@@ -1 +1 @@", "--- a/b"]), max_size=30)


@given(old=LINES, new=LINES)
def test_difflib_output_applies_and_reverts(old, new):
    before, after = "".join(f"{line}\n" for line in old), "".join(f"{line}\n" for line in new)
    # A start of 0, for an empty side, is a created file, which is refused.
    if before != after and before and after:
        diff = parse(diff_of(before, after), source="x.patch")
        assert apply(diff, before) == after
        assert apply(reverse(diff), after) == before


@given(old=LINES, new=LINES, other=LINES)
def test_diff_applies_only_where_old_lines_match(old, new, other):
    before, after = ("".join(f"{line}\n" for line in lines) for lines in (old, new))
    if before != after and before and after:
        diff = parse(diff_of(before, after), source="x.patch")
        stands = all(other[h.start - 1 : h.start - 1 + len(h.old)] == list(h.old) for h in diff.hunks)
        assert applies(diff, "".join(f"{line}\n" for line in other)) == stands


def applies(diff: FileDiff, base: str) -> bool:
    try:
        apply(diff, base)
    except HunkMismatchError:
        return False
    return True
