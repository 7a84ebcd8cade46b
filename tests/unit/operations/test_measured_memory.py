"""A start's own log beside the plan, and what the next plan makes of it; the log is a GPU's, of target and drafter."""

import json
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.operations.measured_memory import earlier_starts, kv_cache_line, memory_line, start_memory
from deckard_deploy.planning.memory.fit import MemoryPlan, memory_of
from deckard_deploy.planning.memory.settings import GIB
from deckard_deploy.startup import history
from deckard_deploy.startup.phases import Facts, PhaseTracker
from tests.support.sample_choices import choice

LOG = Path(__file__).parents[1] / "startup" / "logs" / "ready.cuda.log"
H100 = choice("h100", "drafter=deckard-e4b")


@pytest.fixture
def planned() -> MemoryPlan:
    return memory_of(H100)


def facts() -> Facts:
    tracker = PhaseTracker(0)
    for line in LOG.read_text().splitlines():
        tracker.feed(line, 0)
    return tracker.facts


def recorded(memory: MemoryPlan, *, model: str = "deckard-31b") -> history.Start:
    names = {"profile": "h100", "model": model, "engine": H100.engine.name}
    return history.Start(**names, cold=True, total_s=1, durations={}, memory=start_memory(facts(), memory))


def test_memory_line_compares_log_and_plan(planned: MemoryPlan) -> None:
    # 28.03 GiB loaded, 36.02 GiB left for the KV cache, and 0.49 GiB of graphs, says the log
    engine = planned.requested / GIB - 28.03 - 36.02
    assert memory_line(facts(), planned) == (
        f"weights 28.0 GiB (planned: 28.0 GiB), engine {engine:.1f} GiB (planned: 3.4 GiB), "
        "CUDA graphs 0.5 GiB (planned: 0.4 GiB)"
    )


def test_kv_cache_line_names_difference(planned: MemoryPlan) -> None:
    same = Facts(kv_cache_tokens=planned.tokens, max_concurrency=2.0)
    assert (
        kv_cache_line(same, planned)
        == f"; KV cache of {planned.tokens:,} tokens, 2.0 full-length requests, as planned"
    )
    assert kv_cache_line(same, None).endswith("2.0 full-length requests")
    half = Facts(kv_cache_tokens=planned.tokens // 2, max_concurrency=1.0)
    assert kv_cache_line(half, planned).endswith(f"(planned: {planned.tokens:,}, -50.0%)")
    assert kv_cache_line(Facts(), planned) == ""


def test_empty_log_gives_no_memory_line(planned: MemoryPlan) -> None:
    assert memory_line(Facts(), planned) == ""


def test_earlier_starts_have_measured_sizes(tmp_path: Path, planned: MemoryPlan) -> None:
    path = tmp_path / "startups.jsonl"
    history.record(path, recorded(planned))
    history.record(path, recorded(planned, model="another"))
    (start,) = earlier_starts(H100, path)
    assert start.step == planned.step
    assert start.engine == pytest.approx(planned.requested - 64.05 * GIB, abs=1)
    assert start.graphs == int(0.49 * GIB)


def test_fixed_kv_size_measures_no_engine(tmp_path: Path) -> None:
    given = memory_of(choice("h100", "drafter=deckard-e4b", "kv-cache-memory-bytes=20000000000"))
    history.record(tmp_path / "s", recorded(given))
    (start,) = earlier_starts(H100, tmp_path / "s")
    assert (start.engine, start.graphs) == (None, int(0.49 * GIB))


def test_counted_graphs_are_no_part_of_engine(tmp_path: Path, planned: MemoryPlan) -> None:
    path = tmp_path / "s"
    history.record(path, recorded(planned))
    counting = choice("h100", "drafter=deckard-e4b", "environment.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=1")
    (apart,), (together,) = earlier_starts(counting, path), earlier_starts(H100, path)
    assert together.engine is not None
    assert apart.engine == together.engine - int(0.49 * GIB)
    engine = planned.requested / GIB - 28.03 - 36.02 - 0.49
    assert f", engine {engine:.1f} GiB (planned: 3.4 GiB), " in memory_line(facts(), memory_of(counting))


def test_negative_graph_size_is_zero(planned: MemoryPlan, tmp_path: Path) -> None:
    start = recorded(planned)
    assert start.memory is not None
    below = start.memory.model_copy(update={"graph_capture_gib": -0.7})
    history.record(tmp_path / "s", start.model_copy(update={"memory": below}))
    assert earlier_starts(H100, tmp_path / "s")[0].graphs == 0


def test_start_without_memory_is_skipped(tmp_path: Path, planned: MemoryPlan) -> None:
    line = json.loads(recorded(planned).model_dump_json())
    del line["memory"]  # as earlier versions wrote it
    (tmp_path / "s").write_text(json.dumps(line) + "\n")
    assert earlier_starts(H100, tmp_path / "s") == ()


def test_plan_marks_measured_figures(
    tmp_path: Path, planned: MemoryPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path))
    command = ["plan", "--profile", "h100", "--drafter", "deckard-e4b", "--explain"]
    assert run(command) == 0
    assert "  = engine      3.4 GiB (1.7 GiB to 6.7 GiB, assumed)\n" in capsys.readouterr().out
    history.record(tmp_path / "startups.jsonl", recorded(planned))
    assert run(command) == 0
    out = capsys.readouterr().out
    engine = planned.requested / GIB - 64.05
    assert f"  = engine      {engine:.1f} GiB (measured here)\n" in out
    assert "  ~ CUDA graphs 0.5 GiB (measured here)\n" in out
    assert "engine       measured on this host, in 1 earlier start\n" in out
