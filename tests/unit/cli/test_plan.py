"""What `plan` says of the memory, as a screen of 80 columns without colour and as JSON; what `up` refuses by it."""

import os
import re
from pathlib import Path

import pytest

from deckard_deploy.cli.main import run
from deckard_deploy.planning.memory.fit import memory_of
from deckard_deploy.rehearsal import gemma4
from deckard_deploy.startup.history import Start, StartMemory, record
from tests.support.json_output import checked
from tests.support.sample_choices import choice

GOLDEN = Path(__file__).parent / "golden"
SPARK_KIB = 127_601_452  # MemTotal of a Spark, 121.69 GiB
PATCHED = ["--engine", "vllm-0.19.1"]
SCREENS = {
    "spark": [*PATCHED, "--profile", "spark"],
    "spark-drafter": ["--profile", "spark", "--drafter", "deckard-e4b"],
    "spark-mtp": ["--profile", "spark", "--drafter", "mtp"],
    "spark-without-hybrid": [
        *[*PATCHED, "--profile", "spark", "--set", "max-model-len=131072"],
        *["--set", "disable-hybrid-kv-cache-manager=true"],
    ],
    "b200": [*PATCHED, "--profile", "b200"],
    "b200-replicas": [*PATCHED, "--profile", "b200", "--replicas", "8"],
    "b200-replicas-of-two": [
        *PATCHED,
        "--profile",
        "b200",
        "--replicas",
        "4",
        "--set",
        "tensor-parallel-size=2",
    ],
    "b200-256k": [*PATCHED, "--profile", "b200", "--set", "max-model-len=262144"],
    "rtx-5090": [*PATCHED, "--profile", "rtx-5090"],
    "rtx-5090-doubtful": [*PATCHED, "--profile", "rtx-5090", "--set", "max-model-len=131072"],
    "rtx-5090-no": [
        *PATCHED,
        "--profile",
        "rtx-5090",
        "--set",
        "max-model-len=262144",
        "--set",
        "kv-cache-dtype=auto",
    ],
    "spark-explained": ["--profile", "spark", "--drafter", "deckard-e4b", "--explain"],
    "spark-mtp-explained": ["--profile", "spark", "--drafter", "mtp", "--explain"],
    "b200-explained": [*PATCHED, "--profile", "b200", "--explain"],
    "cpu": ["--profile", "cpu"],
    "thor": [*PATCHED, "--profile", "thor"],
    "spark-default": ["--profile", "spark"],
}
EXIT_CODES = {"spark-without-hybrid": 9, "rtx-5090-no": 9}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DECKARD_HOME", str(tmp_path / "home"))


def meminfo(folder: Path, *, total_kib: int = SPARK_KIB, available_gib: int = 110) -> Path:
    file = folder / "meminfo"
    file.write_text(
        f"MemTotal:       {total_kib} kB\nMemFree:  1 kB\nMemAvailable:   {available_gib * 2**20} kB\n"
    )
    return file


def memory_of_screen(text: str) -> str:
    """The screen without what is no memory: hashes and paths differ from place to place."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("memory"))
    last = next(number for number, line in enumerate(lines) if line.startswith("change"))
    return "\n".join(lines[first:last]) + "\n"


@pytest.mark.parametrize("name", SCREENS)
def test_screen_is_golden(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *SCREENS[name]]) == EXIT_CODES.get(name, 0)
    found = memory_of_screen(capsys.readouterr().out)
    file = GOLDEN / f"plan-{name}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")
    assert max(map(len, found.splitlines())) <= 80
    assert found.isascii()


def test_screen_and_error_have_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    """What is left for the KV cache was 4.1 GiB on the screen and 7.1 GiB in the error."""
    assert run(["plan", *SCREENS["rtx-5090-no"]]) == 9
    captured = capsys.readouterr()
    on_screen = re.search(r"NO: (.*? are left)", " ".join(captured.out.split()))
    assert on_screen
    assert f"error: it does not fit: {on_screen[1]}" in " ".join(captured.err.split())


def test_large_numbers_have_separators_and_no_false_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--profile", "b200", "--set", "max-model-len=16"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"fits +[0-9]{1,3}(,[0-9]{3})+ sequences of 16 tokens; vLLM counts [0-9,]+\n", text), (
        text
    )
    assert not re.search(r"\d{4,}\.\d", text)


EXPLAINED = [
    ["--profile", "spark"],
    ["--profile", "spark", "--drafter", "deckard-e4b"],
    ["--profile", "spark", "--drafter", "mtp"],
    ["--profile", "b200", "--engine", "vllm-0.32.0"],
    ["--profile", "h100", "--engine", "vllm-0.32.0", "--set", "async-scheduling=false"],
    ["--profile", "cpu"],
]


@pytest.mark.parametrize("options", EXPLAINED, ids=" ".join)
def test_explained_numbers_are_consistent(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *options, "--json"]) == 0
    memory = checked("plan", capsys.readouterr().out)["memory"]
    assert run(["plan", *options, "--explain"]) == 0
    text = capsys.readouterr().out.replace(",", "")
    (blocks, block, product) = numbers(r"a sequence: (\d+) blocks \* (\d+) = (\d+) bytes", text)
    assert blocks * block == product
    held_back, need = numbers(r"and (\d+) for the null block = (\d+)", text) or (0, product)
    assert product + held_back == need == memory["sequence"]["bytes"]
    (all_blocks, sequence, concurrency) = numbers(r"(\d+) blocks / (\d+) = ([\d.]+) sequences", text)
    assert (all_blocks, sequence) == (memory["kv_cache"]["blocks"], blocks)
    assert concurrency == round(all_blocks / sequence, 2) == memory["kv_cache"]["max_concurrency"]


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    return [float(number) for number in found.groups()] if found else []


def test_screen_after_earlier_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = memory_of(choice("b200")).step._asdict()
    for available, graphs in ((130.2, 0.49), (129.9, 0.51), (130.4, 0.47)):
        memory = StartMemory(
            **step,
            requested_gib=151.6,
            model_loading_gib=19.11,
            available_kv_cache_gib=available,
            graph_capture_gib=graphs,
        )
        start = Start(
            profile="b200",
            model="deckard-31b",
            engine="vllm-0.19.1",
            cold=True,
            total_s=1,
            durations={},
            memory=memory,
        )
        (tmp_path / "home").mkdir(exist_ok=True)
        record(tmp_path / "home" / "startups.jsonl", start)
    assert run(["plan", *PATCHED, "--profile", "b200", "--explain"]) == 0
    found = memory_of_screen(capsys.readouterr().out)
    file = GOLDEN / "plan-b200-after-starts.txt"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")
    assert max(map(len, found.splitlines())) <= 80


def test_memory_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *PATCHED, "--profile", "spark", "--json"]) == 0
    memory = checked("plan", capsys.readouterr().out)["memory"]
    assert (memory["verdict"], memory["problem"], memory["changes"]) == ("fits", None, [])
    assert memory["sequence"] == {"tokens": 65_536, "bytes": 12_931_563_520, "in_flight": 8192}
    assert memory["kv_cache"]["groups"] == [[10, 16]] * 5 + [[10, 32]]
    assert not memory["kv_cache"]["exact"]
    assert [part["name"] for part in memory["parts"]] == ["weights", "engine", "CUDA graphs"]


def test_chosen_gpus_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--profile", "b200", "--set", "environment.CUDA_VISIBLE_DEVICES=3,5"]) == 0
    assert "\ngpus         3, 5\n" in capsys.readouterr().out
    assert run(["plan", "--profile", "b200"]) == 0
    assert "gpus " not in capsys.readouterr().out


def test_numbers_of_one_rank_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--profile", "b200", "--set", "data-parallel-size=8"]) == 0
    assert "one of 8 data-parallel ranks" in capsys.readouterr().out
    assert run(["plan", "--profile", "b200"]) == 0
    assert "data-parallel ranks" not in capsys.readouterr().out


def test_speed_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--profile", "spark", "--drafter", "deckard-e4b", "--json"]) == 0
    speed = checked("plan", capsys.readouterr().out)["speed"]
    assert speed["efficiency"]["value"] == 0.78
    assert speed["ceiling"][0] == {"sequences": 1, "context": 1024, "tokens_per_s": 13.46}
    assert speed["drafter"]["break_even_acceptance"] == pytest.approx(0.49, abs=0.005)
    assert speed["drafter"]["best"][1] == {"acceptance": 0.5, "tokens": 2, "speedup": 1.275}
    assert run(["plan", "--profile", "cpu", "--json"]) == 0
    assert "unknown" in checked("plan", capsys.readouterr().out)["speed"]


def test_slow_drafter_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", "--profile", "spark", "--drafter", "deckard-e4b"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "deckard-e4b: SLOWER THAN NONE unless more than 19% of its drafted tokens are accepted" in said
    assert "(a chance of 49% for each of 5 in turn)" in said
    assert run(["plan", "--profile", "spark", "--drafter", "mtp"]) == 0
    assert "assistant: faster than none when more than 5%" in " ".join(capsys.readouterr().out.split())
    assert run(["plan", "--profile", "spark"]) == 0
    assert "SLOWER" not in capsys.readouterr().out


def test_unfit_plan_exits_9_with_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *SCREENS["rtx-5090-no"], "--json"]) == 9
    captured = capsys.readouterr()
    memory = checked("plan", captured.out)["memory"]
    assert memory["verdict"] == "no"
    assert len(memory["changes"]) == 3
    assert memory["changes"][0][0] in captured.err


def test_local_tensors_replace_catalog_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = gemma4.write(tmp_path / "home" / "models" / "tiny-gemma4", quantization="nvfp4_awq")
    assert run(["plan", "--profile", "cpu", "--json"]) == 0
    (weights,) = checked("plan", capsys.readouterr().out)["memory"]["parts"]
    assert weights["source"].startswith("its tensors: ")
    # The header alone.
    assert 0 < (folder / "model.safetensors").stat().st_size - weights["expected"] < 200_000
    (folder / "model.safetensors").write_bytes(b"cut")
    assert run(["plan", "--profile", "cpu", "--json"]) == 0
    (weights,) = checked("plan", capsys.readouterr().out)["memory"]["parts"]
    assert weights["source"].startswith("its size in the catalog")


def test_unknown_memory_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--profile", "thor", "--json"]) == 0
    assert "unknown" in checked("plan", capsys.readouterr().out)["memory"]


@pytest.mark.parametrize("profile", ["spark", "b200", "cpu"])
def test_plan_fits_a_screen_and_full_shows_the_rest(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--profile", profile]) == 0
    screen = capsys.readouterr().out.splitlines()
    assert len(screen) <= 30
    assert max(len(line) for line in screen if "/home/" not in line) <= 80
    assert run(["plan", "--profile", profile, "--json"]) == 0
    plan = checked("plan", capsys.readouterr().out)["plan"]
    assert run(["plan", "--profile", profile, "--full"]) == 0
    full = capsys.readouterr().out
    text = " ".join(full.split())
    for argument in plan["arguments"]:
        assert argument in text
    for name, value in plan["environment"].items():
        assert f"{name}={value}" in text
    for mount in plan["mounts"]:
        assert mount["source"] in text
    for patch in plan["patches"]:
        assert patch["module"] in text
    folded = re.search(r"and (\d+) more options", " ".join(" ".join(screen).split()))
    assert folded
    assert 0 < int(folded[1]) < full.count("\noption")
