"""The order in which known failures are preferred, and docker's messages."""

import pytest

from deckard_deploy.failures.log_lines import parse
from deckard_deploy.failures.matching import (
    STALL_LINES,
    KnownFailure,
    find_failure,
    find_in_message,
    find_stall,
    may_be_fatal,
)
from deckard_deploy.failures.signatures import Rank

NO_SPACE = "OSError: [Errno 28] No space left on device"
NCCL = "INFO 11-30 10:00:00 [pynccl.py:111] vLLM is using nccl==2.27.5"


def first(*lines: str, rank: Rank = Rank.CAUSE) -> str | None:
    return id_of(find_failure([parse(line) for line in lines], rank))


def id_of(found: KnownFailure | None) -> str | None:
    return found.signature.id if found else None


def test_first_matching_line_wins():
    assert first("torch.OutOfMemoryError: CUDA out of memory.", NO_SPACE) == "cuda-out-of-memory"
    assert first(NO_SPACE, "torch.OutOfMemoryError: CUDA out of memory.") == "no-space-left"


def test_warning_counts_only_for_definite_failures():
    assert first(f"WARNING 11-30 10:00:00 [x.py:1] {NO_SPACE}") is None
    assert first("/x/cuda/__init__.py:184: UserWarning: Error 802: system not yet initialized") == (
        "fabric-manager"
    )


def test_error_precedes_warning():
    warning = "/x/cuda/__init__.py:184: UserWarning: Error 802: system not yet initialized"
    assert first(warning, NO_SPACE) == "no-space-left"


def test_context_may_be_a_source_frame():
    line = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"
    frame = '  File "/opt/vllm/v1/spec_decode/eagle.py", line 1, in propose'
    assert first(line) is None
    assert first(line, rank=Rank.CONSEQUENCE) == "shapes-differ"
    assert first(frame, line) == "drafter-dimensions"
    assert first(line, frame) is None


@pytest.mark.parametrize("text", ['  File "/x.py", line 1', "    raise ValueError()", ""])
def test_source_and_blank_lines_are_not_fatal(text: str):
    assert not may_be_fatal(parse(text))


def test_stall_is_the_last_progress():
    loading = "INFO 11-30 10:00:00 [x.py:1] Starting to load model /models/x..."
    assert id_of(find_stall([parse(NCCL), parse(loading)])) == "stalled-loading"
    assert id_of(find_stall([parse(loading), parse(NCCL)])) == "stalled-nccl"
    assert find_stall([parse(NCCL), *[parse("INFO: x")] * STALL_LINES]) is None


def test_message_of_several_lines_is_read_whole():
    message = (
        "Error response from daemon: failed to create task for container: OCI runtime create failed: x\n"
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update: unknown"
    )
    assert id_of(find_in_message(message)) == "image-needs-newer-driver"
    assert find_in_message("something new") is None


def test_secret_of_a_line_is_not_in_the_texts():
    found = find_in_message("vllm serve: error: unrecognized arguments: --hf-token hf_abcdefghijklmnop")
    assert found is not None
    assert found.signature.id == "unrecognized-arguments"
    assert "abcdefgh" not in found.cause + found.fix
