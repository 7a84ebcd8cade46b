"""Every known failure is found in its example, and not in its control."""

import re
import time

import pytest

from deckard_deploy.failures.log_lines import MAX_TEXT, LogLine, parse
from deckard_deploy.failures.matching import find_area, find_failure, find_stall
from deckard_deploy.failures.signatures import FOLDER, TOPICS, Rank, Signature, load_signatures
from deckard_deploy.system.text import clean

SIGNATURES = load_signatures()
BY_LINE = [each for each in SIGNATURES if each.lines]
# A line before the example, for those that need one.
CONTEXT = {
    "broadcast-timeout": '  File "/opt/vllm/distributed/device_communicators/shm_broadcast.py", in acquire_read',
    "weights-other-key": '  File "/opt/vllm/model_executor/models/gemma4.py", line 1, in load_weights',
    "drafter-dimensions": '  File "/opt/vllm/model_executor/models/gemma4_mtp.py", line 210, in forward',
    "tied-weights": '  File "/opt/vllm/model_executor/layers/vocab_parallel_embedding.py", in tie_weights',
}
PIECES = ("a", " ", "/", "'", ".", "nvidia", "error: ", "\\", "No space left on device ", "(" * 10, "x.y_")
MAX_SEARCH_S = 0.05  # a quadratic pattern takes more for 4,000 characters
names = pytest.mark.parametrize("signature", BY_LINE, ids=lambda each: each.id)


def found_in(signature: Signature, text: str) -> str:
    """Return the id of the failure that a log of this line, and what has to stand before it, shows."""
    lines: list[LogLine] = [parse(CONTEXT[signature.id])] if signature.id in CONTEXT else []
    lines.append(parse(text))
    if signature.rank is Rank.STALL:
        found = find_stall(lines)
    elif signature.rank is Rank.AREA:
        found = find_area("", [text])
    else:
        ranks = (Rank.CAUSE, Rank.CONSEQUENCE, Rank.ECHO)
        found = next((known for rank in ranks if (known := find_failure(lines, rank))), None)
    return found.signature.id if found else ""


@names
def test_example_shows_its_failure(signature: Signature):
    assert found_in(signature, signature.example) == signature.id


@names
def test_control_does_not_match(signature: Signature):
    assert signature.control
    assert signature.search(parse(signature.control).text) is None


@names
def test_context_is_required(signature: Signature):
    if signature.context:
        found = find_failure([parse(signature.example)], signature.rank)
        assert found is None or found.signature != signature
        assert not signature.context.search(signature.example)


@names
def test_search_of_hostile_line_is_linear(signature: Signature):
    for piece in PIECES:
        for text in (piece, signature.example, signature.example[: len(signature.example) // 2]):
            line = (text * MAX_TEXT)[:MAX_TEXT]
            began = time.process_time()
            signature.search(line)
            assert time.process_time() - began < MAX_SEARCH_S, (piece, text)


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda each: each.id)
def test_texts_are_complete(signature: Signature):
    for text in (signature.title, signature.cause, signature.fix, signature.source):
        assert text
        assert clean(text) == text
    groups = [set(pattern.groupindex) for pattern in signature.lines] or [set()]
    used = {name for _, name in re.findall(r"(?<!\{)(\{)(\w+)\}", signature.cause + signature.fix)}
    assert all(used <= each for each in groups), "each pattern has the groups of the texts"
    assert signature.lines or signature.exit_codes or signature.oom_killed


def test_ids_and_titles_are_unique():
    assert len({each.id for each in SIGNATURES}) == len(SIGNATURES)
    assert len({each.title for each in SIGNATURES}) == len(SIGNATURES)


def test_exit_codes_are_unique():
    codes = [code for each in SIGNATURES for code in each.exit_codes]
    assert sorted(codes) == sorted(set(codes))


def test_every_file_is_a_topic():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == TOPICS.keys()
