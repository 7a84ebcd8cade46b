"""From vLLM's own result to a record and its figures; the requests; failures of the benchmark process."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from deckard_deploy.errors import NetworkError
from deckard_deploy.measuring.engine_bench import benchmark_worker
from deckard_deploy.measuring.sweep import SweepProgress, enough_runs, run_from_result, sweep
from deckard_deploy.measuring.workload import Settings
from tests.support.fake_benchmark import fake_endpoint
from tests.support.sample_records import RESULT, SPECULATIVE


def test_run_matches_vllms_result() -> None:
    found = run_from_result(RESULT, concurrency=2, seed=7)
    assert found.tokens_per_s == RESULT["output_throughput"]
    assert found.output_tokens == sum(request.output_tokens for request in found.requests) == 50
    assert found.ttft.p50 == pytest.approx(1000 * median(request.ttft_s for request in found.requests))
    # The engine's own latency goes on to the end of the stream, past the last token.
    summed = 1000 * median(request.latency_s for request in found.requests)
    assert summed <= found.latency.p50 == pytest.approx(summed, rel=1e-3)
    assert found.acceptance is None


def test_acceptance_matches_engines_count() -> None:
    found = run_from_result(RESULT | SPECULATIVE, concurrency=2, seed=7).acceptance
    assert found is not None
    assert 100 * found.rate == pytest.approx(SPECULATIVE["spec_decode_acceptance_rate"])
    assert found.length == pytest.approx(SPECULATIVE["spec_decode_acceptance_length"])


def test_server_that_answers_nothing_is_an_error(tmp_path: Path) -> None:
    result = {
        "completed": 0,
        "num_prompts": 4,
        "ttfts": [],
        "itls": [],
        "errors": ["", "Traceback\nrefused\n"],
    }
    code = f'json.dump({result!r}, open(sys.argv[sys.argv.index("--result-dir") + 1] + "/result.json", "w"))'
    with (
        benchmark_worker(fake_endpoint(tmp_path, code)) as bench,
        pytest.raises(NetworkError, match="http://s answered none of 4 requests: refused"),
    ):
        bench.measure([])


def test_two_servers_get_same_prompts_in_turn(tmp_path: Path) -> None:
    whole = {**RESULT, "itls": [[]] * len(RESULT["ttfts"]), "errors": []}
    code = f"""
        result = {whole!r}
        with open({str(tmp_path / "log")!r}, "a") as log:
            log.write(sys.argv[sys.argv.index("--base-url") + 1][-1] + sys.argv[sys.argv.index("--seed") + 1] + "\\n")
        json.dump(result, open(sys.argv[sys.argv.index("--result-dir") + 1] + "/result.json", "w"))
    """
    first = fake_endpoint(tmp_path, code)
    settings = Settings(workload="random", concurrency=(2,), runs=2)
    rounds = list(sweep([first, replace(first, server="http://t")], settings, lambda _: None))
    seeds = [[run.seed for run in runs] for runs in rounds]
    assert all(one == other for one, other in seeds)
    warmed, _, *asked = (tmp_path / "log").read_text().split()
    assert asked == [
        f"{name}{seed}" for names, (seed, _) in zip(("st", "ts"), seeds, strict=True) for name in names
    ]
    assert warmed[1:] not in {str(seed) for seed, _ in seeds}


def test_imprecise_runs_are_repeated() -> None:
    settings = Settings(runs=3, most_runs=5)
    assert not enough_runs([10.0, 10.0], settings)
    assert enough_runs([10.0, 10.1, 9.9], settings)
    assert not enough_runs([10.0, 13.0, 9.0], settings)
    assert enough_runs([10.0, 13.0, 9.0, 14.0, 8.0], settings)
    assert enough_runs([10.0, 13.0, 9.0], Settings(runs=3))


def test_answers_without_tokens_are_an_error(tmp_path: Path) -> None:
    result = {"completed": 4, "total_output_tokens": 0, "ttfts": [], "itls": [], "errors": []}
    code = f'json.dump({result!r}, open(sys.argv[sys.argv.index("--result-dir") + 1] + "/result.json", "w"))'
    with (
        benchmark_worker(fake_endpoint(tmp_path, code)) as bench,
        pytest.raises(NetworkError, match="4 requests without a single"),
    ):
        bench.measure([])


def test_progress_has_speed_and_time_left() -> None:
    said: list[str] = []
    times = iter([0.0, 4.0, 12.0, 40.0])
    settings = Settings(concurrency=(1, 4), runs=2, most_runs=3)
    progress = SweepProgress(settings, said.append, lambda: next(times))
    run = run_from_result(RESULT, concurrency=1, seed=7)
    at_four = run_from_result(RESULT, concurrency=4, seed=7)
    progress.show((run,), 1)  # 4 s after the beginning: too early for a line
    progress.show((run,), 2)
    progress.show((at_four, at_four), 1)
    speed = f"{run.tokens_per_s:.1f}"
    assert said == [
        f"bench    concurrency 1: run 2 of 2 to 3, {speed} tok/s, at least 0:12 left",
        f"bench    concurrency 4: run 1 of 2 to 3, {speed}, {speed} tok/s, at least 0:13 left",
    ]
