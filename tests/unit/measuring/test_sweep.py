"""From vLLM's own result to a record and its figures; the requests; failures of the benchmark process."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError, NetworkError
from deckard_deploy.measuring import records
from deckard_deploy.measuring.engine_bench import Endpoint, benchmark_worker
from deckard_deploy.measuring.figures import rows
from deckard_deploy.measuring.sweep import enough_runs, run_from_result, sweep
from deckard_deploy.measuring.tables import WIDTH, cells, notes
from deckard_deploy.measuring.workload import Settings
from tests.support.sample_records import RESULT, SPECULATIVE, record, run


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


def test_row_has_median_speed_and_pooled_acceptance() -> None:
    few = run(10.0, drafts=10, accepted=10)
    many = run(30.0, drafts=90, accepted=0)
    (row,) = rows(record([few, run(20.0), many]))
    assert (row.tokens_per_s.low, row.tokens_per_s.median, row.tokens_per_s.high) == (10.0, 20.0, 30.0)
    assert (row.acceptance, row.length, row.by_position) == (10 / 400, 1.1, (0.1, 0.0, 0.0, 0.0))


def test_table_fits_terminal_and_names_failures() -> None:
    bench_record = record(
        [run(12345.6, concurrency=16, failed=3, drafts=9, accepted=9), run(1.5, drafts=9, accepted=9)]
    )
    widths = [max(map(len, column)) for column in zip(*cells(bench_record), strict=True)]
    assert sum(widths) + 2 * (len(widths) - 1) <= WIDTH
    assert all(len(line) <= WIDTH for line in notes(bench_record))
    assert "FAILED" in " ".join(notes(bench_record))
    assert "FAILED" not in " ".join(notes(record([run(1.0)])))


def test_prompts_differ_from_their_first_word_on() -> None:
    settings = Settings()
    prompts = [*settings.prompts(300, seed=1), *settings.prompts(300, seed=2)]
    assert len({prompt[:24] for prompt in prompts}) == 600
    assert settings.prompts(3, seed=1) == prompts[:3]


@pytest.mark.parametrize("workload", ["text", "random"])
def test_arguments_are_options_of_vllm_bench(workload) -> None:
    words = Settings(workload=workload).arguments(4, 8, 1)
    assert all(name.startswith("--") for name in words[::2])
    assert "--num-warmups" not in words  # it would put the first measured prompt into the prefix cache


def test_saved_record_is_loaded_unchanged(tmp_path: Path) -> None:
    bench_record = record([run(1.0, drafts=4, accepted=2)])
    path = records.save(tmp_path, bench_record)
    assert records.load(path) == bench_record
    assert records.find(tmp_path, "last") == records.find(tmp_path, bench_record.id[:12]) == path
    assert [path.name for path in tmp_path.iterdir()] == [f"{bench_record.id}.json"]


def set_field(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(whole: dict[str, Any]) -> None:
        *way, last = name.split(".")
        for step in way:
            whole = whole[int(step)] if step.isdecimal() else whole[step]  # type: ignore[index]
        whole[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_field("runs", []),
        set_field("runs.0.requests", []),
        set_field("runs.0.tokens_per_s", 0),
        set_field("runs.0.tokens_per_s", 1e300),
        set_field("runs.0.concurrency", 0),
        set_field("runs.0.requests.0.latency_s", 0),
        set_field("runs.0.completed", -1),
        set_field("runs.0.concurrency", 10**30),
        set_field("runs.0.requests.0.output_tokens", 10**400),
        set_field("runs.0.acceptance.drafts", 0),
        set_field("runs.0.acceptance.draft_tokens", 0),
        set_field("runs.0.acceptance.accepted_tokens", 10**400),
        set_field("runs.0.acceptance.by_position", [1e308]),
        set_field("id", "../../elsewhere"),
        set_field("subject.model", "\x1b[2Jred"),
        set_field("ended", "two\nlines"),
        set_field("unknown", 1),
    ],
)
def test_damaged_record_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = records.save(tmp_path, record([run(1.0, drafts=4, accepted=2)]))
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))
    with pytest.raises(IntegrityError):
        records.load(path)


def test_unknown_record_is_named_in_error(tmp_path: Path) -> None:
    path = records.save(tmp_path, record([run(1.0)]))
    path.write_text(path.read_text().replace('"tokens_per_s": 1.0', '"tokens_per_s": "fast"'))
    with pytest.raises(IntegrityError, match=r"runs\.0\.tokens_per_s"):
        records.load(path)
    with pytest.raises(BadInputError, match="no record 'nonsense'"):
        records.find(tmp_path, "nonsense")
    records.save(tmp_path, record([run(1.0)], name="other"))
    with pytest.raises(BadInputError, match="2 records begin with '2026"):
        records.find(tmp_path, "2026")
    with pytest.raises(BadInputError, match="No such file"):
        records.load(records.find(tmp_path, str(tmp_path / "gone.json")))


def fake_endpoint(tmp_path: Path, bench: str) -> Endpoint:
    """An endpoint with a fake vLLM, whose `bench serve` runs the given code."""
    package = tmp_path / "vllm"
    (package / "benchmarks").mkdir(parents=True)
    (package / "entrypoints" / "cli").mkdir(parents=True)
    for module in ("benchmarks/serve.py", "entrypoints/cli/serve.py"):
        (package / module).touch()
    code = "import json, os, sys, time\ndef main():\n" + textwrap.indent(textwrap.dedent(bench), "    ")
    (package / "entrypoints" / "cli" / "main.py").write_text(code)
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    python = (sys.executable,)
    return Endpoint(
        server="http://s", served_name="m", model="/m", python=python, environment=environment, key="k"
    )


WRITE_PROBE = """
    folder = sys.argv[sys.argv.index("--result-dir") + 1]
    prompts = json.load(open(sys.argv[sys.argv.index("--dataset-path") + 1]))
    seen = {"completed": 1, "total_output_tokens": 1, "argv": sys.argv, "prompts": prompts,
            "key": os.environ["OPENAI_API_KEY"],
            "pid": os.getpid(),
            "commands": [open(f"/proc/{pid}/cmdline").read() for pid in (os.getpid(), os.getppid())],
            "ttfts": [], "itls": [], "errors": []}
    json.dump(seen, open(f"{folder}/result.json", "w"))
    print("talk")
"""


def test_key_is_in_no_command_line(tmp_path: Path) -> None:
    there = fake_endpoint(tmp_path, WRITE_PROBE)
    with benchmark_worker(there) as bench:
        found = bench.measure(["--seed", "1"], ["first", "second"])
    assert found["key"] == "k"
    assert "'k'" not in str(found["argv"])
    assert [turn["conversations"][0]["value"] for turn in found["prompts"]] == ["first", "second"]
    assert all('"key"' not in command.replace('task["key"]', "") for command in found["commands"])
    assert "key='k'" not in repr(there)


def test_each_run_has_its_own_process(tmp_path: Path) -> None:
    with benchmark_worker(fake_endpoint(tmp_path, f"{WRITE_PROBE}\n    global main; main = None")) as bench:
        found = [bench.measure([], ["a"])["pid"] for _ in range(3)]
    assert len(set(found)) == 3


def test_failed_run_does_not_affect_the_next(tmp_path: Path) -> None:
    code = f"if '--bad' in sys.argv: raise RuntimeError('no such option')\n{textwrap.dedent(WRITE_PROBE)}"
    with benchmark_worker(fake_endpoint(tmp_path, code)) as bench:
        with pytest.raises(EnvironmentUnfitError, match="vllm bench serve: RuntimeError: no such option"):
            bench.measure(["--bad"])
        assert bench.measure([], ["a"])["completed"] == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('raise SystemExit("serve: error: unrecognized arguments: --new")', "unrecognized arguments: --new"),
        (
            'print("usage: serve"); print("serve: error: --new?", file=sys.stderr); sys.exit(2)',
            "serve: error: --new?",
        ),
        ("os.kill(os.getpid(), 9)", "it ended with -9"),
        ("os.kill(os.getppid(), 9)", "it said nothing"),
    ],
)
def test_last_line_of_output_is_the_error(tmp_path: Path, code: str, said: str) -> None:
    with (
        benchmark_worker(fake_endpoint(tmp_path, code)) as bench,
        pytest.raises(EnvironmentUnfitError, match=said),
    ):
        bench.measure([])


def test_python_that_ends_early_is_an_error() -> None:
    there = Endpoint(server="s", served_name="m", model="/m", python=("/bin/false",), environment={})
    with benchmark_worker(there) as bench, pytest.raises(EnvironmentUnfitError, match="it said nothing"):
        bench.measure([], ["more than a pipe holds" * 10_000])


def test_python_without_vllm_is_an_error() -> None:
    there = Endpoint(server="s", served_name="m", model="/m", python=(sys.executable,), environment={})
    with (
        benchmark_worker(there) as bench,
        pytest.raises(EnvironmentUnfitError, match="No module named 'vllm'"),
    ):
        bench.measure([])


def test_missing_python_is_an_error(tmp_path: Path) -> None:
    gone = Endpoint(
        server="s", served_name="m", model="/m", python=(str(tmp_path / "python"),), environment={}
    )
    with pytest.raises(EnvironmentUnfitError, match="No such file"), benchmark_worker(gone):
        pass


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


def test_measuring_ends_when_stdin_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    there = fake_endpoint(
        tmp_path, f"open({str(tmp_path / 'begun')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    task = json.dumps({"arguments": [], "prompts": [], "key": ""})
    with subprocess.Popen(
        [*there.python, Path(records.__file__).with_name("inside_engine.py")],
        env=dict(there.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as beside:
        assert beside.stdin is not None
        beside.stdin.write(f"{task}\n")
        beside.stdin.flush()
        measuring = Path(f"/proc/{int((tmp_path / 'begun').read_text())}")
        assert measuring.exists()
        beside.stdin.close()
        beside.wait(30)
    assert not measuring.exists()
