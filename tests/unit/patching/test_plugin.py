"""The plugin's wheel: the same bytes everywhere, importable as one file, and what its processes say of it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def said(process: str, sha256: str = OURS) -> str:
    word = f"deckard_nvfp4_awq registered: sha256={sha256} pid=7"
    return f"({process} pid=7) WARNING 11-26 00:10:00 [deckard_nvfp4_awq.py:32] {word}"


START = "(APIServer pid=1) INFO 11-26 00:10:00 [api_utils.py:233] non-default args: {}"
WORKER = "(Worker pid=9) INFO 11-26 00:10:01 [x.py:1] loading"


def test_the_wheel_is_the_same_whoever_builds_it(tmp_path: Path):
    surroundings = (("022", "UTC", ""), ("077", "Asia/Tokyo", "1700000000"), ("000", "America/Lima", "1"))
    hashes = set()
    for number, (umask, zone, epoch) in enumerate(surroundings):
        argv = [sys.executable, "-c", BUILD, umask, str(tmp_path / str(number))]
        environment = {**os.environ, "TZ": zone, "SOURCE_DATE_EPOCH": epoch}
        hashes.add(subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout.strip())
    assert hashes == {plugin.sha256_of(NAME)}


def test_a_wheel_that_is_right_keeps_its_inode_and_a_wrong_one_is_replaced(tmp_path: Path):
    file = plugin.build(NAME, tmp_path / "deep" / plugin.WHEEL)
    before = file.stat().st_ino
    assert plugin.build(NAME, file).stat().st_ino == before
    file.write_bytes(b"something else")
    assert hashlib.sha256(plugin.build(NAME, file).read_bytes()).hexdigest() == plugin.sha256_of(NAME)


def test_python_finds_the_entry_point_in_the_file(tmp_path: Path):
    file = plugin.build(NAME, tmp_path / plugin.WHEEL)

    def ask(path: str) -> str:
        environment = {"PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert "deckard_nvfp4_awq:register" in ask(str(file))
    assert "deckard_nvfp4_awq:register" not in ask(str(tmp_path / "nothing"))


def test_every_process_has_to_say_the_hash():
    lines = [START, said("APIServer"), said("EngineCore"), WORKER, said("Worker")]
    assert plugin.judge_log(lines, OURS) == "in use by APIServer, EngineCore, Worker, hashes right"


def test_an_engine_without_a_worker_process_needs_none():
    assert "APIServer, EngineCore," in plugin.judge_log([START, said("APIServer"), said("EngineCore")], OURS)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([said("APIServer")], "EngineCore does not run plugin .* it said nothing"),
        ([said("APIServer"), said("EngineCore"), WORKER], "Worker does not run plugin .* it said nothing"),
        ([said("APIServer"), said("EngineCore", OTHER)], "EngineCore does not run .* it said bbbbbbbbbbbb"),
    ],
)
def test_a_process_that_says_nothing_or_another_hash_is_an_error(lines: list[str], words: str):
    with pytest.raises(IntegrityError, match=words):
        plugin.judge_log([START, *lines], OURS)


def test_a_log_that_lost_its_beginning_is_not_judged():
    assert plugin.judge_log(["(EngineCore pid=2) INFO later"], OURS).startswith("not asked")
