"""Downloads of minutes that end-to-end tests need: the engines and two images, each made once.

`python -m tests.e2e.downloads FOLDER` has them made while other tests run (scripts/test); a test that needs one waits
for it, and makes it, and fails by it, where that did not.
"""

import fcntl
import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deckard_deploy.running.process import environment, locks

OLD, NEW = "vllm-0.19.1-cpu", "vllm-0.32.0-cpu"
ENGINE_IMAGE, GATEWAY_IMAGE = "build.sh", "gateway.sh"


def engine(folder: Path, name: str) -> Path:
    """The Python of the engine in the folder; the install itself waits for another of the same folder."""
    return environment.install(
        folder / name, lock=locks.LOCKS[name], say=lambda line: print(line, flush=True)
    ).python


def image(script: str) -> str:
    """The tag of the image that a script of image/ builds, unless it is there already."""
    lock = Path(tempfile.gettempdir()) / f"deckard-deploy-test-{script}.lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        build = Path(__file__).parent / "image" / script
        done = subprocess.run(
            [build],
            env={**os.environ, "PYTHON": sys.executable},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    into = Path(sys.argv[1])
    # Filled before threads ask for it (to find uv): Python before 3.13 answers a second thread while it is half filled.
    sysconfig.get_config_vars()
    with ThreadPoolExecutor() as pool:
        engines = [pool.submit(engine, into, name) for name in (OLD, NEW)]
        images = pool.submit(lambda: [image(GATEWAY_IMAGE), image(ENGINE_IMAGE)])
        print([made.result() for made in engines], images.result())
