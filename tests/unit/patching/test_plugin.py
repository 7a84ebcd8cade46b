"""The plugin's wheel: reproducible, importable as one file, and verified by the log of the engine."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deckard_deploy.catalog.specs import LM_HEAD_NAMES, LmHead
from deckard_deploy.errors import IntegrityError
from deckard_deploy.patching import plugin

NAME = plugin.NAME
ASK = "import importlib.metadata as m; print([e.value for e in m.entry_points(group='vllm.general_plugins')])"
BUILD = f"""
import hashlib, os, sys, pathlib
from deckard_deploy.patching import plugin
os.umask(int(sys.argv[1], 8))
print(hashlib.sha256(plugin.build({NAME!r}, pathlib.Path(sys.argv[2])).read_bytes()).hexdigest())
"""
OURS, OTHER = "a" * 64, "b" * 64


PROCESSES = ("APIServer pid=1", "EngineCore pid=2", "Worker_TP0 pid=3")
API, CORE, WORKER = (f"({name}) INFO 11-26 00:10:01 [x.py:1] on" for name in PROCESSES)
START = "(APIServer pid=1) INFO 11-26 00:10:00 [api_utils.py:286] non-default args: {}"


def said(pid: int, sha256: str = OURS) -> str:
    """Return the line as vLLM 0.32.0 logs it: a starting worker has another name, the API server none."""
    prefix = {1: "", 2: "(EngineCore pid=2) WARNING ", 3: "(VllmWorker-0 pid=3) WARNING "}[pid]
    return f"{prefix}deckard_nvfp4_awq registered: sha256={sha256} pid={pid}"


def test_wheel_build_is_reproducible(tmp_path: Path):
    surroundings = (("022", "UTC", ""), ("077", "Asia/Tokyo", "1700000000"), ("000", "America/Lima", "1"))
    hashes = set()
    for number, (umask, zone, epoch) in enumerate(surroundings):
        argv = [sys.executable, "-c", BUILD, umask, str(tmp_path / str(number))]
        environment = {**os.environ, "TZ": zone, "SOURCE_DATE_EPOCH": epoch}
        hashes.add(
            subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout.strip()
        )
    assert hashes == {plugin.wheel_sha256(NAME)}


def test_build_keeps_right_wheel_and_replaces_wrong(tmp_path: Path):
    file = plugin.build(NAME, tmp_path / "deep" / plugin.WHEEL)
    before = file.stat().st_ino
    assert plugin.build(NAME, file).stat().st_ino == before
    file.write_bytes(b"something else")
    assert hashlib.sha256(plugin.build(NAME, file).read_bytes()).hexdigest() == plugin.wheel_sha256(NAME)


def test_python_finds_entry_point_in_wheel(tmp_path: Path):
    file = plugin.build(NAME, tmp_path / plugin.WHEEL)

    def ask(path: str) -> str:
        environment = {"PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "deckard_nvfp4_awq:register" in ask(str(file))
    assert "deckard_nvfp4_awq:register" not in ask(str(tmp_path / "nothing"))


def test_every_process_logs_the_hash():
    lines = [said(1), START, said(2), CORE, said(3), WORKER]
    assert (
        plugin.verify_plugin_log(lines, NAME, OURS) == "in use by APIServer, EngineCore, Worker, hashes right"
    )


def test_engine_without_worker_passes():
    assert "APIServer, EngineCore," in plugin.verify_plugin_log([said(1), START, said(2), CORE], NAME, OURS)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([said(2), CORE], "APIServer 1 does not run plugin .* it said nothing"),
        ([said(1), CORE], "EngineCore 2 does not run plugin .* it said nothing"),
        ([said(1)], "the log knows no EngineCore"),
        ([said(1), said(2), CORE, WORKER], "Worker 3 does not run plugin .* it said nothing"),
        ([said(1), said(2, OTHER), CORE], "EngineCore 2 does not run .* it said bbbbbbbbbbbb"),
    ],
)
def test_missing_or_other_hash_is_refused(lines: list[str], words: str):
    with pytest.raises(IntegrityError, match=words):
        plugin.verify_plugin_log([START, *lines], NAME, OURS)


def test_log_without_start_is_not_verified():
    assert plugin.verify_plugin_log([API, CORE], NAME, OURS).startswith("not asked")


@pytest.mark.parametrize("form", ["fp8", "nvfp4"])
def test_wheel_for_lm_head_names_its_format(tmp_path: Path, form: LmHead):
    name = LM_HEAD_NAMES[form]
    with zipfile.ZipFile(plugin.build(name, tmp_path / plugin.WHEEL)) as wheel:
        modules = {each for each in wheel.namelist() if each.endswith(".py")}
        entry_points = wheel.read("deckard_nvfp4_awq-1.dist-info/entry_points.txt").decode()
    assert entry_points == f"[vllm.general_plugins]\ndeckard_nvfp4_awq = deckard_lm_head:{form}\n"
    with zipfile.ZipFile(plugin.build(NAME, tmp_path / "plain.whl")) as wheel:
        plain = {each for each in wheel.namelist() if each.endswith(".py")}
    assert modules - plain == {"deckard_lm_head.py", "deckard_lm_head_method.py"}
    assert plain < modules


def quantized(pid: int, form: str = "fp8") -> str:
    line = (
        f"deckard_lm_head quantized: form={form} kernel=CutlassFP8ScaledMMLinearKernel off=0.0371 pid={pid}"
    )
    process = "VllmWorker-0" if pid == 3 else "EngineCore"
    return f"({process} pid={pid}) WARNING 12-01 00:10:00 [deckard_lm_head_method.py:95] {line}"


@pytest.mark.parametrize("worker", [False, True])
def test_log_says_how_lm_head_was_quantized(worker: bool):  # noqa: FBT001  a parameter of the test
    lines = [said(1), START, said(2), CORE]
    lines += [said(3), WORKER, quantized(3)] if worker else [quantized(2)]
    told = plugin.verify_plugin_log(lines, "lm-head-fp8", OURS)
    assert told.endswith(
        "hashes right; lm_head fp8 by CutlassFP8ScaledMMLinearKernel, its logits off by 3.7%"
    )


@pytest.mark.parametrize(
    ("lines", "process"),
    [
        ([], "EngineCore 2"),
        ([quantized(2, "nvfp4")], "EngineCore 2"),
        ([said(3), WORKER, quantized(2)], "Worker 3"),  # the worker loads the model
    ],
)
def test_lm_head_that_was_not_quantized_is_refused(lines: list[str], process: str):
    with pytest.raises(IntegrityError, match=f"{process} did not quantize lm_head to fp8"):
        plugin.verify_plugin_log([said(1), START, said(2), CORE, *lines], "lm-head-fp8", OURS)
