"""The real engine, installed, killed in the middle and installed again. Downloads 4.5 GB where uv's cache is cold."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deckard_deploy.running.environment import install, remove
from deckard_deploy.running.locks import VLLM_0_19_1_CPU

pytestmark = pytest.mark.vllm

KILLED_INSTALL = """
import os, signal, sys
from pathlib import Path
from deckard_deploy.running.environment import install
from deckard_deploy.running.locks import VLLM_0_19_1_CPU
def say(line):
    print(line, file=sys.stderr)
    if line.startswith("uv: Installed"):
        os.kill(os.getpid(), signal.SIGKILL)
install(Path(sys.argv[1]), lock=VLLM_0_19_1_CPU, say=say)
"""


def test_a_killed_install_of_the_real_engine_converges(tmp_path: Path):
    env = tmp_path / "engine"
    killed = subprocess.run([sys.executable, "-c", KILLED_INSTALL, env], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (env / "bin" / "python").exists()

    installed = install(env, lock=VLLM_0_19_1_CPU, say=print)
    assert (installed.version, installed.reused) == ("0.19.1", False)
    version = subprocess.run([installed.vllm, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.split()[-1] == "0.19.1+cpu"
    assert install(env, lock=VLLM_0_19_1_CPU, say=print).reused

    remove(env, say=print)
    assert not env.exists()
