"""The worker of a sweep, in a process with the engine's Python: a fake vllm package replaces vLLM."""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.measuring import records
from deckard_deploy.measuring.engine_bench import benchmark_worker
from tests.support.fake_benchmark import fake_endpoint

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
        ("os.kill(os.getppid(), 9)", "no output"),
    ],
)
def test_last_line_of_output_is_the_error(tmp_path: Path, code: str, said: str) -> None:
    with (
        benchmark_worker(fake_endpoint(tmp_path, code)) as bench,
        pytest.raises(EnvironmentUnfitError, match=said),
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
