"""Phases and facts from logs. The first line of ready.*.log states if it is constructed."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deckard_deploy.startup.phases import ORDER, Facts, Phase, PhaseTracker, Progress, load_patterns
from deckard_deploy.system.text import clean, clean_lines

LOGS = Path(__file__).with_name("logs")


def lines_of(name: str) -> list[str]:
    """Return the log's lines as a runtime passes them on."""
    lines = clean_lines((LOGS / f"{name}.log").read_bytes())
    return [line for line in lines if not line.startswith("# ")]


def passed(lines: list[str]) -> tuple[list[Phase], PhaseTracker]:
    tracker = PhaseTracker(0.0)
    seen = [Phase.CONTAINER]
    for second, line in enumerate(lines):
        progress = tracker.feed(line, float(second))
        if progress and progress.phase != seen[-1]:
            seen.append(progress.phase)
    return seen, tracker


CPU = [Phase.CONTAINER, Phase.IMPORTS, Phase.WEIGHTS, Phase.KV_CACHE, Phase.WARM_UP, Phase.SERVER]

# Model runner V2 does not say when it loads the drafter.
GPU_V2 = [phase for phase in ORDER if phase not in {Phase.DRAFTER, Phase.AUTOTUNE}]


@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("ready.eager", CPU),
        ("ready.compile", CPU),
        ("ready.cuda", list(ORDER)),
        (
            "ready.gpu",
            [phase for phase in ORDER if phase not in {Phase.DRAFTER, Phase.WARM_UP, Phase.AUTOTUNE}],
        ),
        ("ready.mtp", [*CPU[:3], Phase.DRAFTER, *CPU[3:4], Phase.SERVER]),
        ("ready.mtp-0.33", [*CPU[:3], Phase.DRAFTER, *CPU[3:4], Phase.SERVER]),
        ("ready.gpu-0.33-cold", GPU_V2),
        ("ready.gpu-0.33-warm", GPU_V2),
        ("weights-corrupt", CPU[:3]),
        ("port-in-use", CPU[:2]),
        ("wrong-architecture", CPU[:1]),
    ],
)
def test_log_passes_phases(name: str, phases: list[Phase]):
    assert passed(lines_of(name))[0] == phases


def test_facts_of_real_start():
    facts = passed(lines_of("ready.eager"))[1].facts
    assert facts.kv_cache_tokens == 349_440
    assert facts.max_concurrency == 309.13
    assert facts.weights_s is not None
    assert facts.init_engine_s is not None


def test_facts_of_start_on_gpu():
    assert passed(lines_of("ready.cuda"))[1].facts == Facts(
        model_loading_gib=28.03,
        model_loading_s=106.512345,
        weights_s=74.05,  # the target's; the drafter's come later
        compile_s=45.67,
        compile_cache_hit=False,
        available_kv_cache_gib=36.02,
        kv_cache_tokens=612_480,
        max_concurrency=9.35,
        graph_capture_s=7.0,
        graph_capture_gib=0.49,
        init_engine_s=98.76,
    )


def test_facts_of_real_start_on_gpu():
    facts = passed(lines_of("ready.gpu"))[1].facts
    assert (facts.compile_s, facts.graph_capture_s, facts.init_engine_s) == (24.04, 5.0, 36.13)
    assert (facts.kv_cache_tokens, facts.max_concurrency) == (699_040, 673.89)
    assert facts.available_kv_cache_gib is None  # kv-cache-memory-bytes is set, so nothing is measured


def test_facts_of_cold_and_warm_start_on_gpu():
    cold = passed(lines_of("ready.gpu-0.33-cold"))[1].facts
    warm = passed(lines_of("ready.gpu-0.33-warm"))[1].facts
    assert (cold.compile_cache_hit, cold.compile_s) == (False, 74.13)
    assert (warm.compile_cache_hit, warm.compile_s) == (True, 38.60)
    # The graphs' memory as it was measured before the KV cache: this is what vLLM subtracted.
    assert (cold.graph_capture_gib, warm.graph_capture_gib) == (0.31, 0.31)


def test_facts_in_wording_of_0_32_0():
    tracker = PhaseTracker(0.0)
    tracker.feed(
        "CPU KV cache size: 349,440 tokens, Maximum concurrency for 1,024 tokens per request: 309.13x", 1.0
    )
    tracker.feed("init engine (profile, create kv cache, warmup model) took 1.23 s", 2.0)
    assert tracker.facts == Facts(kv_cache_tokens=349_440, max_concurrency=309.13, init_engine_s=1.23)


def test_facts_of_real_start_with_drafter():
    facts = passed(lines_of("ready.mtp"))[1].facts
    assert (facts.kv_cache_tokens, facts.max_concurrency) == (316_551, 309.13)
    assert (facts.weights_s, facts.init_engine_s) == (0.02, 1.63)


def test_percent_of_weight_shards():
    tracker = PhaseTracker(0.0)
    line = "(Worker_TP0 pid=9) Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:37<00:37, 37.01s/it]"
    assert tracker.feed(line, 7.0) == Progress(Phase.WEIGHTS, since=7.0, percent=50.0)


def test_percent_never_falls_within_a_bar():
    tracker = PhaseTracker(0.0)
    for percent in (50, 75, 25):
        tracker.feed(
            f"Loading safetensors checkpoint shards: {percent:3}% Completed | 1/2 [00:37<00:37]", 1.0
        )
    assert tracker.progress.percent == 75.0


def test_second_bar_of_phase_starts_over():
    tracker = PhaseTracker(0.0)
    shown = [
        tracker.feed(f"Capturing CUDA graphs ({kind}): {percent:3}%|███  | 1/2 [00:01<00:01]", 1.0)
        for kind, percent in (("mixed prefill-decode, PIECEWISE", 100), ("decode, FULL", 50))
    ]
    assert [progress and (progress.step, progress.percent) for progress in shown] == [
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)", 100.0),
        ("Capturing CUDA graphs (decode, FULL)", 50.0),
    ]


def test_last_state_of_bar_counts():
    tracker = PhaseTracker(0.0)
    raw = "\rCapturing CUDA graphs (decode, FULL):   0%| | 0/2\rCapturing CUDA graphs (decode, FULL):  50%|█"
    progress = tracker.feed(clean(raw), 1.0)
    assert progress is not None
    assert progress.percent == 50.0


def test_weights_of_drafter_belong_to_drafter_phase():
    tracker = PhaseTracker(0.0)
    tracker.feed("Starting to load model /models/deckard-31b...", 1.0)
    tracker.feed("Loading drafter model...", 2.0)
    progress = tracker.feed("Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:37<00:37]", 3.0)
    assert progress == Progress(Phase.DRAFTER, since=2.0, percent=50.0)


def test_line_of_earlier_phase_keeps_the_phase():
    tracker = PhaseTracker(0.0)
    before = tracker.feed("GPU KV cache size: 612,480 tokens", 1.0)
    assert tracker.feed("Starting to load model /models/deckard-31b...", 2.0) == before


@pytest.mark.parametrize(
    "line", ["", " ", "hello", "Loading safetensors check", "(EngineCore pid=1) ", "100%", "# INFO"]
)
def test_other_lines_are_no_progress(line: str):
    assert PhaseTracker(0.0).feed(line, 1.0) is None


def test_durations_add_up():
    tracker = PhaseTracker(10.0)
    tracker.feed("Resolved architecture: Gemma4ForCausalLM", 12.0)
    tracker.feed("Starting to load model /models/deckard-31b...", 20.0)
    assert tracker.durations(50.0) == {Phase.CONTAINER: 2.0, Phase.IMPORTS: 8.0, Phase.WEIGHTS: 30.0}


def test_every_phase_has_a_pattern_with_source():
    begun = {pattern.phases[0] for pattern in load_patterns() if pattern.phases}
    assert begun == set(Phase) - {Phase.CONTAINER}
    assert all(re.search(r"\.py:\d|\.py ", pattern.source) for pattern in load_patterns())


REAL_LINES = [line for name in ("ready.eager", "ready.cuda") for line in lines_of(name)]
PIECES = (
    st.sampled_from(REAL_LINES)
    | st.text()
    | st.sampled_from(["\r", "\x1b[0m", "(EngineCore pid=1) ", "100%|"])
)
CUT = st.builds(
    lambda line, at: line[at:] if at < 0 else line[:at], st.sampled_from(REAL_LINES), st.integers(-80, 80)
)
DIGITS = st.builds(
    lambda line, digits: re.sub(r"\d+", digits, line),
    st.sampled_from(REAL_LINES),
    st.from_regex(r"[0-9.,]{1,40}", fullmatch=True),
)


@settings(deadline=None)
@given(st.lists(st.lists(PIECES | CUT | DIGITS, max_size=4).map("".join), max_size=40))
def test_tracker_never_raises_or_goes_back(lines: list[str]):
    tracker = PhaseTracker(0.0)
    before = tracker.progress
    for second, line in enumerate(lines):
        progress = tracker.feed(clean(line), float(second))
        now = tracker.progress
        assert progress in (None, now)
        assert ORDER.index(now.phase) >= ORDER.index(before.phase)
        assert now.percent is None or 0.0 <= now.percent <= 100.0
        if (now.phase, now.step) == (before.phase, before.step) and before.percent is not None:
            assert now.percent is not None
            assert now.percent >= before.percent
        before = now
    total = float(len(lines))
    assert sum(tracker.durations(total).values()) == pytest.approx(total)
