"""The cost of the tool, as ratios measured in one run: python benchmarks/run.py [--docker IMAGE] [--process]

Start-up of the command line, and `verify --fast`, against the imports that they need; with --process and
--docker also the tool's own share of a start. Times are medians. A ratio is the median of the ratios of
pairs, so that a machine whose speed drifts does not distort it.
"""

import argparse
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests

from deckard_deploy.catalog import library
from deckard_deploy.catalog.specs import HubRepository
from deckard_deploy.weights.folder import PRIVATE_FOLDER, ModelFolder
from deckard_deploy.weights.manifest import Manifest, RemoteFile

PROGRAM = [str(Path(sys.executable).with_name("deckard-deploy"))]
CLICK = [sys.executable, "-c", "import click"]
PLAN = [sys.executable, "-c", "import click, yaml, pydantic"]
RENDER = [sys.executable, "-c", "import click, yaml, jinja2, pydantic"]
VALIDATE = [
    sys.executable,
    "-c",
    "import click, yaml, pydantic; pydantic.create_model('One', value=int)(value=1)",
]


def cpu_seconds(command: list[str]) -> float:
    """Return user and system time of one run, without its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall_seconds(command: list[str]) -> float:
    """Return the elapsed time of one run, without its output."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def ratio(
    name: str, command: list[str], base: list[str], clock: Callable[[list[str]], float], limit: float
) -> None:
    """Print the ratio of two commands over 15 pairs, after one warm-up pair."""
    clock(command), clock(base)
    pairs = [(clock(command), clock(base)) for _ in range(15)]
    found = statistics.median(a / b for a, b in pairs)
    ours = statistics.median(a for a, _ in pairs) * 1000
    theirs = statistics.median(b for _, b in pairs) * 1000
    print(f"{name:46} {found:5.2f}x  (goal {limit:g}x; {ours:.0f} ms against {theirs:.0f} ms)")


def command_line() -> None:
    """Measure `--help`, `profiles list`, `plan` and `render compose` against bare imports."""
    for what, clock in (("cpu", cpu_seconds), ("wall", wall_seconds)):
        ratio(f"--help / import click ({what})", [*PROGRAM, "--help"], CLICK, clock, 1.5)
        ratio(f"profiles list / import click ({what})", [*PROGRAM, "profiles", "list"], CLICK, clock, 1.5)
        plan = [*PROGRAM, "plan", "--profile", "spark"]
        ratio(f"plan / import its libraries ({what})", plan, PLAN, clock, 2.5)
        compose = [*PROGRAM, "render", "compose", "--profile", "spark"]
        ratio(f"render compose / import its libraries ({what})", compose, RENDER, clock, 2.5)


def verify_fast(home: Path) -> None:
    """Measure `verify --fast` of an unchanged model of 12 files against bare imports."""
    model = library.model("deckard-31b")
    assert isinstance(model.weights, HubRepository)  # noqa: S101  for the type checker
    files = []
    place = ModelFolder(home / "models" / model.name)
    (place.folder / PRIVATE_FOLDER).mkdir(parents=True)
    for number in range(12):
        path = place.folder / f"model-{number:05}-of-00012.safetensors"
        path.write_bytes(os.urandom(4096))
        files.append(
            RemoteFile(path=path.name, size=4096, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        )
    place.save_manifest(Manifest(repo=model.weights.repo, commit="a" * 40, files=tuple(files)))
    place.record_verified(files)
    command = [*PROGRAM, "verify", "--profile", "spark", "--drafter", "none", "--fast"]
    ratio("verify --fast / import its libraries (cpu)", command, VALIDATE, cpu_seconds, 1.2)
    ratio("verify --fast / import its libraries (wall)", command, VALIDATE, wall_seconds, 1.2)


def doctor() -> None:
    """Measure `doctor`. It runs all programs in parallel, so the slowest one decides."""
    command = [*PROGRAM, "doctor", "--profile", "spark"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        found = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        assert found.returncode in (0, 3)  # noqa: S101  its verdict on this machine
        seconds.append(time.perf_counter() - started)
    print(f"{'doctor':46} {statistics.median(seconds):5.2f} s  (goal 3 s)")


def first_answer(port: int, model: str, seen: list[float], stop: threading.Event) -> None:
    """Append the time of the first successful completion to `seen`, asking without pause."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8}
    while not stop.is_set():
        try:
            answer = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=30)
            if answer.status_code == 200:
                seen.append(time.monotonic())
                return
        except requests.ConnectionError:
            time.sleep(0.01)


def url_delay(port: int, home: Path) -> None:
    """Measure the delay between the first possible completion and the base URL that `up` prints."""
    environment = {**os.environ, "DECKARD_HOME": str(home)}
    up = [*PROGRAM, "up", "--profile", "cpu", "--name", "bench", "--port", str(port)]
    subprocess.run(up, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    gaps = []
    for _ in range(3):
        subprocess.run(
            [*PROGRAM, "down", "--name", "bench"], env=environment, capture_output=True, check=True
        )
        seen: list[float] = []
        stop = threading.Event()
        asking = threading.Thread(target=first_answer, args=(port, "tiny-gemma4", seen, stop))
        asking.start()
        with subprocess.Popen(
            up, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as running:
            assert running.stdout is not None  # noqa: S101  PIPE gives one: for the type checker
            running.stdout.readline()
            printed = time.monotonic()
        stop.set()
        asking.join()
        gaps.append(printed - seen[0])
    subprocess.run([*PROGRAM, "down", "--name", "bench"], env=environment, capture_output=True, check=True)
    print(
        f"{'base URL after the first possible completion':46} {statistics.median(gaps):5.2f} s  (goal 0.5 s; {gaps})"
    )


def up_against_compose(image: str, port: int, home: Path) -> None:
    """Measure `up` against a bare `docker compose up --detach --wait` of the file that `up` wrote."""
    environment = {**os.environ, "DECKARD_HOME": str(home)}
    engine = ["--engine", "vllm-0.19.1-cpu-docker", "--image", image]
    up = [*PROGRAM, "up", "--profile", "cpu", "--name", "benchdock", "--port", str(port), *engine]
    down = [*PROGRAM, "down", "--name", "benchdock"]
    subprocess.run(up, env=environment, capture_output=True, check=True)
    subprocess.run(down, env=environment, capture_output=True, check=True)
    (written,) = (home / "deployments" / "benchdock" / "releases").glob("*/compose.yaml")
    with tempfile.TemporaryDirectory() as folder:
        # Health probes every second: compose's default interval would notice it later than `up` does.
        file = Path(folder) / "compose.yaml"
        file.write_text(written.read_text().replace('interval: "10s"', 'interval: "1s"'))
        compose = ["docker", "compose", "-f", str(file)]
        ratios = []
        for _ in range(3):
            ours = timed(up, environment)
            subprocess.run(down, env=environment, capture_output=True, check=True)
            theirs = timed([*compose, "up", "--detach", "--wait"], environment)
            subprocess.run([*compose, "down"], capture_output=True, check=True)
            ratios.append(ours / theirs)
    print(
        f"{'up / docker compose up --detach --wait':46} {statistics.median(ratios):5.2f}x  (goal 1.03x; {ratios})"
    )


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Return the elapsed seconds of a command that must succeed."""
    started = time.monotonic()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return time.monotonic() - started


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--process", action="store_true", help="also start a real engine on the process runtime"
    )
    parser.add_argument(
        "--docker", metavar="IMAGE", help="also start this image of the engine through compose"
    )
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache" / "deckard-deploy-bench")
    parser.add_argument("--port", type=int, default=18970)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program does not compile itself each time
    with tempfile.TemporaryDirectory() as home:
        os.environ["DECKARD_HOME"] = home  # nothing deployed, no earlier starts
        command_line()
        verify_fast(Path(home))
        doctor()
    os.environ.pop("DECKARD_HOME")
    if arguments.process:
        url_delay(arguments.port, arguments.home)
    if arguments.docker:
        up_against_compose(arguments.docker, arguments.port + 1, arguments.home)


if __name__ == "__main__":
    main()
