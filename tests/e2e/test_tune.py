"""`tune` on the real engines: bad candidates are rejected, and the release before runs again."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Tool
from tests.support.ports import free_port

pytestmark = pytest.mark.vllm
CRASHES = "kv-cache-dtype=fp8_e5m2"  # vLLM 0.19.1 on a CPU: chunked prefill is not supported with it
CHANGES_TEXT = 'override-generation-config={"repetition_penalty":5.0}'
DRAFTS = "engine=vllm-0.32.0-cpu drafter=tiny-ngram"


@pytest.mark.usefixtures("engine_python", "new_engine_python")
def test_bad_candidates_are_rejected_and_the_release_runs_again(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the settings of a winner are written there
    chosen = ("--profile", "cpu", "--name", "tuned", "--port", str(free_port()))
    tool("up", *chosen)
    try:
        before = json.loads(tool("status", "--name", "tuned", "--json").stdout)
        tried = [f"--try={candidate}" for candidate in (CRASHES, CHANGES_TEXT, DRAFTS)]
        search = ("--budget", "20m", "--output-tokens", "16", "--json")
        done = tool("tune", *chosen, *tried, *search, timeout=1500)
        record = json.loads(done.stdout)
        trials = {" ".join(trial["settings"]): trial for trial in record["trials"]}
        assert "FP8 KV cache" in trials[CRASHES]["rejected"]
        assert "its text differs" in trials[CHANGES_TEXT]["rejected"]
        assert trials[DRAFTS]["distance"] == 0
        assert not trials[DRAFTS]["rejected"]
        assert min(trials[DRAFTS]["speeds"]["1"]) > 0
        after = json.loads(tool("status", "--name", "tuned", "--json").stdout)
        assert (after["condition"], after["plan"]) == ("ready", before["plan"])
    finally:
        tool("down", "--name", "tuned", "--purge", check=False)
