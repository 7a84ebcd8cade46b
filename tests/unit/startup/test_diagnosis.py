"""Each known failure has a log under logs/. Its first line states if it is real or constructed."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deckard_deploy.failures.log_lines import parse
from deckard_deploy.failures.matching import may_be_fatal
from deckard_deploy.failures.signatures import Rank, load_signatures
from deckard_deploy.startup.diagnosis import MAX_LINE, UNKNOWN, diagnose, relevant_lines
from deckard_deploy.startup.observation import State
from deckard_deploy.startup.phases import Phase
from deckard_deploy.system.text import clean, clean_lines

LOGS = Path(__file__).with_name("logs")
FAILURES = sorted(path.stem for path in LOGS.glob("*.log") if not path.stem.startswith("ready."))

HEALTHY = sorted(path.stem for path in LOGS.glob("ready.*.log"))


@dataclass(frozen=True)
class Ended:
    state: State = "exited"
    exit_code: int | None = 1
    oom_killed: bool = False
    restart_count: int = 0
    instance_id: str | None = "c0ffee"
    gateway: State | None = None
    gateway_exit_code: int | None = None


def lines_of(name: str) -> list[str]:
    lines = clean_lines((LOGS / f"{name}.log").read_bytes())
    assert lines[0].startswith("# "), "the first line says where the log comes from"
    return lines[1:]


def failure_of(name: str) -> str:
    """Return the signature of a log named `<signature>` or `<signature>.<variant>`."""
    return name.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("name", FAILURES)
def test_diagnose_names_failure(name: str):
    found = diagnose(lines_of(name), phase=Phase.WEIGHTS, observation=Ended())
    assert found.signature == failure_of(name)
    assert found.first_fatal_line
    for text in (found.first_fatal_line, found.cause, found.fix):
        assert "\n" not in text
    assert not re.search(r"\{\w*\}", found.cause + found.fix), "a group that the line did not fill"


@pytest.mark.parametrize("name", FAILURES)
def test_log_shows_no_other_cause(name: str):
    """Another signature matches in no other line than the fatal one."""
    lines = [line for line in map(parse, lines_of(name)) if may_be_fatal(line)]
    causes = [each for each in load_signatures() if each.rank is Rank.CAUSE and not each.context]
    own = [each for each in load_signatures() if each.id == failure_of(name)]
    rest = [line for line in lines if not own[0].search(line.text)]
    assert [each.id for each in causes for line in rest if each.search(line.text)] == []


@pytest.mark.parametrize("name", HEALTHY)
def test_successful_start_has_no_failure(name: str):
    """An exception of a request is none: an engine that is ready serves on."""
    assert diagnose(lines_of(name), phase=Phase.SERVER).rank in (None, Rank.CONSEQUENCE)


def test_every_log_is_of_a_signature():
    assert {failure_of(name) for name in FAILURES} <= {each.id for each in load_signatures()}


def test_failure_before_ready_is_survived():
    ready = "(APIServer pid=1) INFO:     Application startup complete."
    fatal = "OSError: [Errno 28] No space left on device"
    assert diagnose([fatal, ready], phase=Phase.SERVER).signature == UNKNOWN
    assert diagnose([fatal, ready, fatal], phase=Phase.SERVER).signature == "no-space-left"
    assert relevant_lines([parse(ready)]) == []


def test_shutdown_on_request_is_no_failure():
    dead = (
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)"
    )
    shutdown = (
        "(APIServer pid=1) INFO 11-30 16:54:05 [launcher.py:256] [shutdown] API server: shutdown triggered"
    )
    start = "(APIServer pid=1) INFO 11-30 16:55:05 [utils.py:233] non-default args: {'port': 8000}"
    assert diagnose([dead], phase=Phase.SERVER).signature == "engine-died-silently"
    assert diagnose([shutdown, dead], phase=Phase.SERVER).signature == UNKNOWN
    assert diagnose([shutdown, start, dead], phase=Phase.SERVER).signature == "engine-died-silently"


def test_stalled_start_is_named_by_its_last_progress():
    lines = ["(Worker_TP0 pid=9) INFO 11-30 09:50:46 [pynccl.py:111] vLLM is using nccl==2.27.5"]
    assert diagnose(lines, phase=Phase.IMPORTS).signature == UNKNOWN
    assert diagnose(lines, phase=Phase.IMPORTS, stalled=True).signature == "stalled-nccl"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("max-model-len-estimate", "--set max-model-len="),
        ("max-model-len-too-long", "--set max-model-len=4096"),
        ("free-memory", "98.1/121.7"),
        ("invalid-environment-value", "environment.VLLM_NVFP4_GEMM_BACKEND"),
    ],
)
def test_fix_contains_values_of_the_log(name: str, said: str):
    assert said in diagnose(lines_of(name), phase=Phase.KV_CACHE).fix


def test_fix_contains_estimated_length_of_the_log():
    lines = lines_of("max-model-len-estimate")
    (printed,) = {
        line.split("maximum model length is ")[1].split(".")[0] for line in lines if "model length is" in line
    }
    assert diagnose(lines, phase=Phase.KV_CACHE).fix.endswith(f"max-model-len={printed}")


@pytest.mark.parametrize(
    ("ended", "signature"),
    [
        (Ended(exit_code=137, oom_killed=True), "oom-killed"),
        (Ended(exit_code=137), "killed"),
        (Ended(exit_code=-9), "killed"),
        (Ended(exit_code=127), "cannot-execute"),
        (Ended(exit_code=125), "docker-could-not-run"),
        (Ended(exit_code=132), "engine-illegal-cpu-instruction"),
        (Ended(exit_code=134), "engine-aborted"),
        (Ended(exit_code=135), "bus-error"),
        (Ended(exit_code=139), "engine-segfault"),
        (Ended(exit_code=-11), "engine-segfault"),
        (Ended(exit_code=143), "engine-terminated"),
        (Ended(exit_code=1), UNKNOWN),
        (Ended(exit_code=None), UNKNOWN),
    ],
)
def test_end_without_error_is_named_by_exit(ended: Ended, signature: str):
    lines = [
        "(EngineCore pid=7) INFO 11-23 12:00:04 [gpu_model_runner.py:4736] Starting to load model /models/d..."
    ]
    assert diagnose(lines, phase=Phase.WEIGHTS, observation=ended).signature == signature


def test_oom_kill_precedes_the_log():
    found = diagnose(lines_of("weights-corrupt"), phase=Phase.WEIGHTS, observation=Ended(oom_killed=True))
    assert found.signature == "oom-killed"


def test_unknown_failure_shows_first_exception():
    lines = [
        "(EngineCore pid=7) ERROR 11-23 12:00:00 [core.py:1108] EngineCore failed to start.",
        "(EngineCore pid=7) ERROR 11-23 12:00:00 [core.py:1108] Traceback (most recent call last):",
        '(EngineCore pid=7) ERROR 11-23 12:00:00 [core.py:1108]     raise ZeroDivisionError("quoted")',
        "(EngineCore pid=7) ERROR 11-23 12:00:00 [core.py:1108] ZeroDivisionError: division by zero",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    found = diagnose(lines, phase=Phase.WEIGHTS, observation=Ended())
    assert (found.signature, found.first_fatal_line) == (UNKNOWN, "ZeroDivisionError: division by zero")
    assert "exit code 1" in found.cause
    assert diagnose(lines[::-1], phase=Phase.WEIGHTS).first_fatal_line == found.first_fatal_line
    assert diagnose(lines[-1:], phase=Phase.WEIGHTS).signature == "engine-died-silently"


def test_unknown_validation_error_names_the_value():
    lines = [
        "(APIServer pid=1) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "(APIServer pid=1)   Value error, the moon is full [type=value_error]",
    ]
    assert "the moon is full" in diagnose(lines, phase=Phase.IMPORTS).first_fatal_line


def test_quoted_message_is_not_the_failure():
    lines = [
        '    raise ValueError("No available memory for the cache blocks.")',
        "(APIServer pid=1) WARNING 11-23 12:00:00 [x.py:1] OSError: [Errno 98] Address already in use",
    ]
    assert diagnose(lines, phase=Phase.IMPORTS).signature == UNKNOWN


def test_empty_log_has_a_diagnosis():
    found = diagnose([], phase=Phase.CONTAINER)
    assert (found.signature, found.first_fatal_line) == (UNKNOWN, "")


def test_fatal_line_is_cut_and_without_secrets():
    line = f"ValueError: token hf_abcdefghijklmnop is refused {'x' * 1000}"
    shown = diagnose([line], phase=Phase.IMPORTS).first_fatal_line
    assert "abcdefgh" not in shown
    assert len(shown) == MAX_LINE


LINES = [line for name in FAILURES for line in lines_of(name)]


@settings(deadline=None)
@given(st.lists(st.sampled_from(LINES) | st.text(), max_size=20))
def test_diagnose_never_raises(lines: list[str]):
    found = diagnose(map(clean, lines), phase=Phase.WEIGHTS)
    assert "\n" not in found.first_fatal_line + found.cause + found.fix


def test_unknown_exception_leads_to_the_part_it_comes_from():
    lines = [
        "Traceback (most recent call last):",
        '  File "/opt/vllm/v1/engine/core.py", line 1, in run_engine_core',
        '  File "/opt/vllm/model_executor/models/gemma4.py", line 1, in forward',
        '  File "/opt/flashinfer/decode.py", line 1, in run',
        '  File "/opt/torch/_ops.py", line 1, in __call__',
        "RuntimeError: never seen before",
    ]
    found = diagnose(lines, phase=Phase.WARM_UP)
    assert found.signature == "in-flashinfer"
    assert found.cause.startswith("unknown; ")
    assert found.first_fatal_line == "RuntimeError: never seen before"
    assert diagnose([*lines[:2], lines[-1]], phase=Phase.WARM_UP).signature == UNKNOWN


def test_known_cause_is_preferred_to_the_part():
    lines = [
        "Traceback (most recent call last):",
        '  File "/opt/flashinfer/decode.py", line 1, in run',
        "torch.OutOfMemoryError: CUDA out of memory.",
    ]
    assert diagnose(lines, phase=Phase.WARM_UP).signature == "cuda-out-of-memory"
