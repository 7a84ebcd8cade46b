"""The process that quantizes: its progress, its environment and its end."""

import sys
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.quantizing.worker import ProgressLines, run_worker
from tests.support.waiting import eventually


def python(tmp_path: Path, program: str) -> Path:
    """Return a Python that runs the program in place of inside_modelopt.py."""
    (tmp_path / "program.py").write_text(program)
    found = tmp_path / "python"
    found.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "program.py"} "$@"\n')
    found.chmod(0o755)
    return found


def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.json"
    path.write_text("{}")
    return path


def lines() -> ProgressLines:
    return ProgressLines(lambda _line: None)


def test_no_token_reaches_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    program = "import json, os\nprint('compiling')\nprint(json.dumps({'result': dict(os.environ)}))"
    seen = run_worker(python(tmp_path, program), job(tmp_path), tmp_path / "log", lines())
    assert "HF_TOKEN" not in seen
    assert "PYTHONPATH" not in seen
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["HF_HUB_OFFLINE"]) == ("1", "1")


def test_end_without_a_result_is_a_failure(tmp_path: Path):
    with pytest.raises(
        EnvironmentUnfitError, match=r"ModelOpt failed \(exit code 0\).*: half a line"
    ) as caught:
        run_worker(
            python(tmp_path, "import sys\nprint('half a line', file=sys.stderr)"),
            job(tmp_path),
            tmp_path / "log",
            lines(),
        )
    assert caught.value.hint == f"less {tmp_path / 'log'}"


def test_worker_ends_when_its_caller_is_interrupted(tmp_path: Path):
    program = (
        "import json, os, sys\nfrom pathlib import Path\n"
        "Path(sys.argv[0]).with_name('pid').write_text(str(os.getpid()))\n"
        "print(json.dumps({'phase': 'load', 'done': 0, 'what': 'x'}), flush=True)\n"
        "os.read(0, 1)\n"
    )

    class StoppedError(Exception):
        pass

    def interrupt(_line: str) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        run_worker(python(tmp_path, program), job(tmp_path), tmp_path / "log", ProgressLines(interrupt))
    pid = int((tmp_path / "pid").read_text())
    assert eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_progress_has_the_time_that_is_left():
    said: list[str] = []
    clock = [0.0]
    shown = ProgressLines(said.append, lambda: clock[0])
    for second in range(61):
        clock[0] = float(second)
        shown.show("calibrate", second / 200, f"text {second}")
    assert said[0] == "quantize calibrate: text 0"
    assert said[1] == "quantize calibrate 8%, about 3:05 left: text 15"
    assert len(said) == 5
    shown.show("export", 0, "")
    assert said[-1].startswith("quantize export:")


def test_progress_cannot_control_the_terminal():
    said: list[str] = []
    ProgressLines(said.append).show("check", 0, "layers.0\x1b[2J")
    assert said == ["quantize check: layers.0\\x1b[2J"]
