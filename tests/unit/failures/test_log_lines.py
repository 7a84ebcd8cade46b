"""Lines in the formats of vLLM, uvicorn, FlashInfer, torch and docker."""

import pytest

from deckard_deploy.failures.log_lines import MAX_TEXT, LogLine, parse, without_secrets
from deckard_deploy.system.text import clean


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            "(EngineCore pid=166) INFO 11-23 12:06:03 [kv_cache_utils.py:1319] GPU KV cache size: 349,440 tokens",
            LogLine("EngineCore", "INFO", "GPU KV cache size: 349,440 tokens"),
        ),
        (
            "2026-11-23T12:06:03.123456789Z (Worker_TP0 pid=9) ERROR 11-23 12:06:03 [multiproc_executor.py:857] boom",
            LogLine("Worker_TP0", "ERROR", "boom"),
        ),
        (
            "\x1b[1;36m(APIServer pid=1)\x1b[0;0m \x1b[32mINFO\x1b[0m:     Started",
            LogLine("APIServer", "INFO", "Started"),
        ),
        ("INFO:     Application startup complete.", LogLine("", "INFO", "Application startup complete.")),
        (
            "2026-04-14 02:42:01,123 - INFO - autotuner.py:262 - flashinfer.jit: [Autotuner]: Autotuning process ends",
            LogLine("", "INFO", "[Autotuner]: Autotuning process ends"),
        ),
        (
            "W1123 12:17:14.612000 1489 torch/utils/cpp_extension.py:118] No CUDA runtime is found",
            LogLine("", "W", "No CUDA runtime is found"),
        ),
        ("(EngineCore pid=166)     raise ValueError(", LogLine("EngineCore", "", "    raise ValueError(")),
        ("(APIServer pid=1) (EngineCore pid=2) both", LogLine("EngineCore", "", "both")),
        (
            "2025-06-12 20:49:44     raise ValueError(",
            LogLine("", "", "    raise ValueError("),
        ),
        ("[vllm]: [rank0]: RuntimeError: x", LogLine("", "", "RuntimeError: x")),
        (
            "INFO 04-08 19:59:10 model_runner.py:1115] Loading model weights took 14.9595 GB",
            LogLine("", "INFO", "Loading model weights took 14.9595 GB"),
        ),
        ("ValueError: INFO is no level here", LogLine("", "", "ValueError: INFO is no level here")),
        ("\x1b]0;title\x07plain\x00\x08", LogLine("", "", "plain")),
    ],
)
def test_parse_removes_prefixes(raw: str, line: LogLine):
    assert parse(clean(raw)) == line


def test_parse_keeps_last_state_of_progress_bar():
    assert parse(clean("(E pid=1) 0%\r 50%\r(E pid=1) 100%")) == LogLine("E", "", "100%")


@pytest.mark.parametrize("raw", ["", "\r", "(EngineCore pid=1) \r"])
def test_parse_of_blank_line_has_no_text(raw: str):
    assert parse(clean(raw)).text == ""


def test_parse_cuts_long_text():
    assert len(parse("x" * 10 * MAX_TEXT).text) == MAX_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "401 for hf_abcdefghijklmnop",
        "Authorization: Bearer s3cret-abcdefghijklmnop",
        "vllm serve x --api-key abcdefghijklmnop",
        "vllm serve x --api-key=abcdefghijklmnop",
        "non-default args: {'api_key': ['abcdefghijklmnop'], 'port': 8000}",
    ],
)
def test_without_secrets_masks_keys_and_tokens(text: str):
    assert "abcdefghijklmnop" not in without_secrets(text)
    assert "***" in without_secrets(text)
