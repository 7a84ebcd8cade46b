"""The exception of a traceback is found by its place, not by its name."""

import pytest

from deckard_deploy.failures.exceptions import exceptions
from deckard_deploy.failures.log_lines import parse


def found(*lines: str) -> list[str]:
    return [each.text for each in exceptions(parse(line) for line in lines)]


TRACE = "Traceback (most recent call last):"
FRAME = '  File "/x.py", line 1, in f'


@pytest.mark.parametrize(
    "last",
    [
        "Unsupported: x",
        "KeyError: 'x'",
        "mypackage.Nope",
        "torch._dynamo.exc.BackendCompilerFailed: x",
        "_X: y",
    ],
)
def test_last_line_of_traceback_is_the_exception(last: str):
    assert found(TRACE, FRAME, "    f()", last) == [last]


def test_line_that_is_no_exception_is_passed_over():
    assert found(
        TRACE, FRAME, "/pytorch/x.cu:1515: block: [16,0,0]", "torch.AcceleratorError: CUDA error: x"
    ) == ["torch.AcceleratorError: CUDA error: x"]


def test_processes_are_separate():
    lines = [
        f"(EngineCore pid=7) {TRACE}",
        f"(APIServer pid=1) {TRACE}",
        "(EngineCore pid=7) Odd: one",
        "(APIServer pid=1) Even: two",
    ]
    assert found(*lines) == ["Odd: one", "Even: two"]


def test_without_its_first_line_a_traceback_needs_a_known_ending():
    assert found("ValueError: x") == ["ValueError: x"]
    assert found("torch._dynamo.exc.Unsupported: x") == ["torch._dynamo.exc.Unsupported: x"]
    assert found("Unsupported: x", "Note: y", "https://x: y") == []


def test_continuation_belongs_to_the_exception():
    assert found("x.exc.BackendCompilerFailed: backend='y' raised:", "AssertionError: no graph")[0] == (
        "x.exc.BackendCompilerFailed: backend='y' raised: AssertionError: no graph"
    )


def test_echo_and_warning_are_none():
    echo = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert found(echo, f"WARNING 11-30 10:00:07 [x.py:1] {TRACE}", "INFO: ValueError: x") == []


def test_files_are_those_of_its_own_traceback_innermost_first():
    lines = [
        f"(EngineCore pid=7) {TRACE}",
        '(EngineCore pid=7)   File "/outer.py", line 1, in f',
        '(APIServer pid=1)   File "/other.py", line 1, in f',
        "(EngineCore pid=7)     g()",
        '(EngineCore pid=7)   File "/inner.py", line 2, in g',
        "(EngineCore pid=7) ValueError: x",
        '(EngineCore pid=7)   File "/handler.py", line 3, in h',
        "(EngineCore pid=7) KeyError: y",
    ]
    assert [each.files for each in exceptions(map(parse, lines))] == [
        ["/inner.py", "/outer.py"],
        ["/handler.py"],
    ]
